/**
 * How prices are put on the axis: times a power of ten that suits the token, as the chart's own arithmetic ends at
 * 1e-14, and back again for labels. Pure.
 */

import { axis, magnitude, marks } from "./price";

/** Powers of ten around one at which prices are drawn as they are. */
const COMFORTABLE = 4;
/** A price that has moved by so many powers of ten gets another scale; less would change it to and fro at a border. */
const LEFT = 2;
const FEWEST_DECIMALS = 2;
const DIGITS = 5;
const FINEST = 12;

export class Scale {
  readonly #power: number;
  readonly #places: number;
  readonly #decimals: number;

  /** `price`: the text of one of the prices that are drawn. */
  constructor(price: string) {
    this.#power = magnitude(price);
    this.#places = Math.abs(this.#power) > COMFORTABLE ? -this.#power : 0;
    this.#decimals = Math.max(FEWEST_DECIMALS, DIGITS - this.#power);
  }

  /** Whether it suits this price too. */
  suits(price: string): boolean {
    return Math.abs(magnitude(price) - this.#power) < LEFT;
  }

  /** The smallest step on the axis, in what is drawn. */
  get step(): number {
    return 10 ** -Math.min(FINEST, Math.max(0, this.#decimals - this.#places));
  }

  /** What is drawn for a price. */
  drawn(price: string): number {
    return Number(`${price}e${this.#places}`);
  }

  label(drawn: number): string {
    return axis(drawn, this.#decimals, this.#places);
  }

  marks(drawn: readonly number[]): string[] {
    return marks(drawn, this.#decimals, this.#places);
  }
}
