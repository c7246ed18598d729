/**
 * What stands between the datafeed and the chart: the bars of one token and interval, loaded, continued and, after a
 * reset, loaded again. Used as TradingView's library uses a datafeed.
 */

import { Bars } from "./bars";
import type { Bar, Datafeed, SymbolInfo } from "./datafeed";

export interface View {
  /** All bars anew; `added` older ones stand before those that were there. */
  draw(bars: Bars, added: number): void;
  /** The last bar changed, or there is one more. */
  update(bar: Bar): void;
  /** Open time of the first bar that is looked at. */
  readonly seenFrom: number | undefined;
  /** Whether the latest bars are what is looked at. */
  readonly live: boolean;
}

const FIRST_PAGE = 600;
const OLDER_PAGE = 1_000;
const LARGEST_PAGE = 5_000;
/** What the page keeps; a chart of more bars than that is one of a larger interval. */
const MOST_BARS = 50_000;
/** Beyond them live bars may come until the oldest are forgotten, so that this is done once for many. */
const SPARE_BARS = 1_000;
const RETRY_MS = 2_000;

let loaders = 0;

export class Loader {
  readonly bars = new Bars();
  readonly #guid = `page ${++loaders}`;
  #ended = false;
  #loads = 0;
  #asking = false;
  #exhausted = false;
  /** Ticks that came while the bars were on their way. */
  #early: Bar[] | undefined;
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();

  constructor(
    private readonly feed: Datafeed,
    private readonly info: SymbolInfo,
    private readonly resolution: string,
    private readonly view: View,
  ) {
    this.#load(FIRST_PAGE, () => this.#subscribe());
  }

  close(): void {
    this.#ended = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.feed.unsubscribeBars(this.#guid);
  }

  /** Load bars before the first, unless that is under way or there are none. */
  older(): void {
    const { first } = this.bars;
    if (this.#asking || this.#exhausted || first === undefined || this.bars.all.length >= MOST_BARS) return;
    this.#asking = true;
    const period = { from: 0, to: first.time / 1000, countBack: OLDER_PAGE, firstDataRequest: false };
    this.feed.getBars(
      this.info,
      this.resolution,
      period,
      (older, meta) => {
        if (this.#ended) return;
        this.#asking = false;
        // A reset may have come between.
        if (this.bars.first?.time !== first.time) return;
        this.#exhausted = meta.noData;
        const added = this.bars.prepend(older);
        if (added) this.view.draw(this.bars, added);
      },
      () => this.#later(() => (this.#asking = false)),
    );
  }

  // The latest bars. Where one load overtakes another, the one that was asked for last counts.
  #load(count: number, then: () => void): void {
    const turn = ++this.#loads;
    this.#early = [];
    // The datafeed answers the first request with the latest bars there are, whatever the clock says.
    const to = Math.ceil(Date.now() / 1000);
    const period = { from: 0, to, countBack: count, firstDataRequest: true };
    this.feed.getBars(
      this.info,
      this.resolution,
      period,
      (bars) => {
        if (this.#ended || turn !== this.#loads) return;
        // Fewer than were asked for are all there are.
        const stays = bars.length >= count && this.bars.renew(bars);
        if (!stays) this.bars.replace(bars);
        this.#exhausted &&= stays;
        for (const one of this.#early ?? []) this.bars.put(one);
        this.#early = undefined;
        this.view.draw(this.bars, 0);
        then();
      },
      () => this.#later(() => turn === this.#loads && this.#load(count, then)),
    );
  }

  #subscribe(): void {
    const tick = (bar: Bar): void => this.#tick(bar);
    this.feed.subscribeBars(this.info, this.resolution, tick, this.#guid, () => this.#reload());
  }

  // As much as is looked at, as far as one page reaches; what lies before it stays as it was.
  #reload(): void {
    const seen = this.bars.at(this.view.seenFrom ?? Infinity);
    const count = this.bars.all.length - seen + OLDER_PAGE / 2;
    this.#load(Math.min(LARGEST_PAGE, Math.max(FIRST_PAGE, count)), () => undefined);
  }

  #tick(bar: Bar): void {
    this.#early?.push(bar);
    const change = this.bars.put(bar);
    const trims = this.bars.all.length > MOST_BARS + SPARE_BARS && this.view.live;
    if (trims) this.bars.trim(MOST_BARS);
    if (change === "inserted" || trims) this.view.draw(this.bars, 0);
    else if (change !== "none") this.view.update(bar);
  }

  #later(action: () => void): void {
    if (this.#ended) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, RETRY_MS * (0.5 + Math.random()));
    this.#timers.add(timer);
  }
}
