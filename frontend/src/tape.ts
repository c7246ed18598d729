/** The latest trades of a token as they are committed, newest first; a bounded number of rows. */

import { byId, element, say, sayDecimal } from "./dom";
import { compact } from "./price";
import { Stream, type Message, type State } from "./stream";

interface Trade {
  readonly trade_id: number;
  readonly time: number;
  readonly price: string;
  readonly amount: string;
  readonly side: "buy" | "sell";
}

const FIRST = 50;
const MOST = 100;

export class Tape {
  readonly #rows = byId("trades");
  readonly #empty = byId("no-trades");
  #stream: Stream | undefined;
  #symbol = "";
  /** Told, and not yet shown: a burst is shown once per frame. */
  #waiting: Trade[] = [];
  #frame = 0;

  constructor(
    private readonly base: URL,
    private readonly onState: (state: State) => void,
  ) {}

  /** Follow a token instead of the one before, unless it is the same. */
  show(symbol: string): void {
    if (symbol === this.#symbol) return;
    this.close();
    this.#symbol = symbol;
    this.#stream = new Stream(this.base, `ws/transactions/${encodeURIComponent(symbol)}`, FIRST, {
      message: (message) => this.#take(message),
      state: (state) => this.onState(state),
    });
  }

  close(): void {
    this.#stream?.close();
    this.#stream = undefined;
    this.#symbol = "";
    this.#clear();
  }

  #take(message: Message): void {
    if (message.type !== "snapshot" && message.type !== "trades") return;
    if (message.type === "snapshot" && message.recovered !== true) this.#clear();
    this.#waiting = [...this.#waiting, ...(message["trades"] as Trade[])].slice(-MOST);
    // Hidden pages have no frames; the rows are shown when they do.
    this.#frame ||= requestAnimationFrame(() => this.#render());
  }

  #render(): void {
    this.#frame = 0;
    const waiting = this.#waiting.splice(0);
    // The rows that would fall off the end are used again.
    for (const trade of waiting) {
      const row = this.#rows.childElementCount >= MOST ? (this.#rows.lastElementChild as HTMLElement) : made();
      fill(row, trade);
      this.#rows.prepend(row);
    }
    this.#empty.hidden = this.#rows.childElementCount > 0;
  }

  #clear(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#waiting = [];
    this.#rows.replaceChildren();
    this.#empty.hidden = false;
  }
}

function made(): HTMLElement {
  const row = element("li", "trade");
  row.append(element("span", "side"), element("span", "price"), element("span", "amount"), element("span", "time"));
  return row;
}

function fill(row: HTMLElement, trade: Trade): void {
  const [side, price, amount, time] = row.children as unknown as HTMLElement[];
  row.dataset["side"] = trade.side;
  row.dataset["id"] = String(trade.trade_id);
  if (side) say(side, trade.side === "buy" ? "▲ Buy" : "▼ Sell");
  if (price) sayDecimal(price, trade.price);
  if (amount) sayDecimal(amount, trade.amount, compact);
  const at = new Date(trade.time).toISOString();
  if (time) {
    say(time, at.slice(11, 19));
    time.title = `${at.slice(0, 10)} ${at.slice(11, 23)} UTC`;
  }
}
