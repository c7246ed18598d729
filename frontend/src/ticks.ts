/** The messages of one stream of bars as ticks that never go back, and a word when history has to be asked again. */

import { compared } from "./price";
import type { Message } from "./stream";
import { bar, type Bar, type BarText } from "./udf";

/** Bars in the snapshot of a stream: what may have happened between history's answer and the stream. */
export const OVERLAP = 100;
const MOST_KNOWN = 4 * OVERLAP;

interface NativeBar extends BarText {
  readonly open_time: number;
}

export class Ticks {
  /** What the library has of the end of the series, as far as it matters; by time. */
  #known: Map<number, Bar>;
  #last: number;
  #awaiting = false;

  /** `given`: the end of the history that the library has. */
  constructor(
    given: readonly Bar[],
    private readonly tick: (bar: Bar) => void,
    private readonly reset: () => void,
  ) {
    this.#known = byTime(given);
    this.#last = given.at(-1)?.time ?? -Infinity;
  }

  take(message: Message): void {
    if (message.type === "snapshot" && message.recovered !== true) {
      const bars = (message["klines"] as NativeBar[]).map(read);
      if (message.recovered === false) this.#lost(bars);
      else this.#begin(bars);
    } else if (message.type === "kline" || message.type === "revision") {
      this.#next(read(message["kline"] as NativeBar));
    }
  }

  /**
   * History that ends with `given` was given again; what came while it was on its way is told after it. `early`: it
   * cannot be the answer to the word that history has to be asked again, as that word is still to come.
   */
  again(given: readonly Bar[], early = false): void {
    const end = given.at(-1)?.time ?? -Infinity;
    if (!this.#awaiting || early) {
      this.#unasked(given, end);
      return;
    }
    this.#awaiting = false;
    const came = this.#newer(given);
    const hole = came.length >= OVERLAP && (came[0]?.time ?? end) > end;
    this.#known = byTime(given);
    this.#last = end;
    if (hole) this.#lost(came);
    else for (const one of came) this.#next(one);
  }

  // Nobody was told to ask, so it may have been this listener or another one of the same series. Ticks must suit both:
  // not older than what was given, and bars that only the other one was given are told when they come.
  #unasked(given: readonly Bar[], end: number): void {
    this.#last = Math.max(this.#last, end);
    if (this.#awaiting) return;
    const came = this.#newer(given);
    const [only] = came;
    if (only === undefined) return;
    if (came.length === 1 && only.time === this.#last) this.tick(only);
    else this.#ask();
  }

  // What was told and is not in `given`, or is there in an older state.
  #newer(given: readonly Bar[]): Bar[] {
    const there = byTime(given);
    const first = given[0]?.time ?? -Infinity;
    const came = [...this.#known.values()].filter((one) => {
      const before = there.get(one.time);
      return one.time >= first && (before === undefined || grown(before, one));
    });
    return came.sort((a, b) => a.time - b.time);
  }

  // The stream could not be continued: it may even be of another database.
  #lost(bars: readonly Bar[]): void {
    this.#known = byTime(bars);
    this.#ask();
  }

  #begin(bars: readonly Bar[]): void {
    const [oldest] = this.#known.keys();
    const [first] = bars;
    // What is known and not `#last`: that may be of bars given to somebody else.
    const newest = Math.max(...this.#known.keys());
    if (oldest !== undefined && first !== undefined && bars.length >= OVERLAP && first.time > newest) {
      this.#lost(bars);
      return;
    }
    for (const one of bars) if (one.time >= (oldest ?? -Infinity)) this.#next(one);
  }

  #next(one: Bar): void {
    const known = this.#known.get(one.time);
    if (known !== undefined && !grown(known, one)) return;
    this.#known.set(one.time, one);
    if (this.#known.size > MOST_KNOWN) this.#forget();
    if (one.time < this.#last) {
      this.#ask();
      return;
    }
    this.#last = one.time;
    this.tick(one);
  }

  #ask(): void {
    this.#awaiting = true;
    this.reset();
  }

  #forget(): void {
    const [oldest] = this.#known.keys();
    if (oldest !== undefined) this.#known.delete(oldest);
  }
}

/** Whether `next` is a newer state of the bar: trades are only ever added, so its volume has grown. */
export function grown(bar: Bar, next: Bar): boolean {
  return compared(next.text.volume, bar.text.volume) > 0;
}

function byTime(bars: readonly Bar[]): Map<number, Bar> {
  return new Map(bars.map((one) => [one.time, one]));
}

function read(native: NativeBar): Bar {
  const { open, high, low, close, volume } = native;
  return bar(native.open_time, { open, high, low, close, volume });
}
