/** Bars of one series: ascending by time, each time once. Pure. */

import { grown } from "./ticks";
import type { Bar } from "./udf";

export type Change = "appended" | "replaced" | "inserted" | "none";

export class Bars {
  #bars: Bar[] = [];

  get all(): readonly Bar[] {
    return this.#bars;
  }

  get first(): Bar | undefined {
    return this.#bars[0];
  }

  get last(): Bar | undefined {
    return this.#bars.at(-1);
  }

  /** Forget what there was. */
  replace(bars: readonly Bar[]): void {
    this.#bars = [...bars];
  }

  /**
   * The end of the series anew. What is older stays where it surely joins: where the new bars begin with one that was
   * there. Otherwise nothing is changed. Returns whether it joins.
   */
  renew(bars: readonly Bar[]): boolean {
    const [first] = bars;
    const joins = first !== undefined && this.find(first.time) !== undefined;
    if (joins) this.#bars = [...this.#bars.slice(0, this.at(first.time)), ...bars];
    return joins;
  }

  /** Forget all but the latest `count`. */
  trim(count: number): void {
    this.#bars = this.#bars.slice(-count);
  }

  /** Older bars, ascending, which may reach into what is there. */
  prepend(older: readonly Bar[]): number {
    const { first } = this;
    const before = first === undefined ? older : older.filter((one) => one.time < first.time);
    this.#bars = [...before, ...this.#bars];
    return before.length;
  }

  /** A bar as it is now; a state older than the one that is there changes nothing. */
  put(bar: Bar): Change {
    const at = this.at(bar.time);
    const there = this.#bars[at];
    if (there?.time === bar.time) {
      if (!grown(there, bar)) return "none";
      this.#bars[at] = bar;
      return "replaced";
    }
    this.#bars.splice(at, 0, bar);
    return at === this.#bars.length - 1 ? "appended" : "inserted";
  }

  /** The bar that opens at `time`. */
  find(time: number): Bar | undefined {
    const found = this.#bars[this.at(time)];
    return found?.time === time ? found : undefined;
  }

  /** The place of the first bar that opens at `time` or later. */
  at(time: number): number {
    let [low, high] = [0, this.#bars.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#bars[middle]?.time ?? 0) < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
