/**
 * TradingView's JS Datafeed API on klines: history from `/udf`, live bars from the native WebSocket.
 *
 *     import { Datafeed } from "/datafeed.js";
 *     new TradingView.widget({ datafeed: new Datafeed(), symbol: "WIFHAT-USDC", interval: "1", … });
 *
 * The rules of the library (Charting Library, "Datafeed API" and "Datafeed: common issues") and how they are kept:
 * callbacks are asynchronous; bars ascend, each time once; `onTick` is never older than what was given before. What a
 * late trade changed, and a stream that could not be continued, is told by `onResetCacheNeededCallback`, after which
 * the library asks again. Subscriptions are kept by listener, as one may be ended after the next has begun.
 */

import { Stream, type State } from "./stream";
import { OVERLAP, Ticks } from "./ticks";
import { fetched, history, type Bar } from "./udf";

export type { Bar, BarText } from "./udf";
export type { State } from "./stream";
/** `useKey("klk_…")` before anything else, where the service wants an API key with the scope `read`. */
export { useKey } from "./access";

/** What of `LibrarySymbolInfo` is used here; the rest is passed through as `/udf/symbols` tells it. */
export interface SymbolInfo {
  readonly name: string;
  readonly ticker: string;
  readonly description: string;
  readonly pricescale: number;
  readonly [member: string]: unknown;
}

export interface PeriodParams {
  readonly from: number;
  readonly to: number;
  readonly countBack: number;
  readonly firstDataRequest: boolean;
}

type OnBars = (bars: Bar[], meta: { noData: boolean }) => void;
type OnError = (reason: string) => void;
type OnTick = (bar: Bar) => void;

interface Subscription {
  readonly key: string;
  readonly stream: Stream;
  readonly ticks: Ticks;
  reset: ReturnType<typeof setTimeout> | undefined;
}

const SEARCHED = 30;
const MOST_SUBSCRIPTIONS = 64;
const MOST_REMEMBERED = 32;
/** The year 2200 in epoch seconds: where the service's time ends. */
const END_OF_TIME = 7_258_118_400;
/** Late trades come in groups; the library loads its bars again once for all of them. */
const RESET_MS = 1_000;

export class Datafeed {
  readonly #base: URL;
  readonly #onState: ((guid: string, state: State) => void) | undefined;
  readonly #subscriptions = new Map<string, Subscription>();
  // The end of the history that was given, by symbol and resolution: streams begin there.
  readonly #given = new Map<string, readonly Bar[]>();

  /**
   * `base`: where the service is, by default the page's own origin. A page of another origin is answered only if the
   * service lists that origin in KLINES_ALLOWED_ORIGINS. `onState` tells how a subscription's stream is.
   */
  constructor(base: string | URL = "/", onState?: (guid: string, state: State) => void) {
    this.#base = new URL(base, location.href);
    this.#onState = onState;
  }

  onReady(callback: (configuration: object) => void): void {
    void this.#fetched<object>("udf/config", {}).then(callback, () => callback({}));
  }

  searchSymbols(input: string, exchange: string, type: string, onResult: (found: object[]) => void): void {
    const query = { query: input, exchange, type, limit: String(SEARCHED) };
    void this.#fetched<object[]>("udf/search", query).then(onResult, () => onResult([]));
  }

  resolveSymbol(name: string, onResolve: (info: SymbolInfo) => void, onError: OnError): void {
    void this.#fetched<SymbolInfo>("udf/symbols", { symbol: name }).then(onResolve, (error) => onError(said(error)));
  }

  getBars(info: SymbolInfo, resolution: string, period: PeriodParams, onResult: OnBars, onError: OnError): void {
    // The first answer reaches up to the latest bar: the browser's clock may be slow, and trades ahead of it.
    const to = period.firstDataRequest ? END_OF_TIME : period.to;
    const query = { symbol: info.ticker, resolution, from: period.from, to, countback: period.countBack };
    void history(this.#base, query).then(
      (bars) => {
        const key = `${info.ticker} ${resolution}`;
        if (period.firstDataRequest) this.#remember(key, bars.slice(-OVERLAP));
        onResult(bars, { noData: bars.length === 0 });
        if (period.firstDataRequest) this.#again(key);
      },
      (error) => onError(said(error)),
    );
  }

  subscribeBars(info: SymbolInfo, resolution: string, onTick: OnTick, guid: string, onReset: () => void): void {
    this.unsubscribeBars(guid);
    if (this.#subscriptions.size >= MOST_SUBSCRIPTIONS) throw new Error(`at most ${MOST_SUBSCRIPTIONS} subscriptions`);
    const key = `${info.ticker} ${resolution}`;
    const ticks = new Ticks(this.#given.get(key) ?? [], onTick, () => this.#reset(guid, onReset));
    const path = `ws/klines/${encodeURIComponent(info.ticker)}/${interval(resolution)}`;
    const stream = new Stream(this.#base, path, OVERLAP, {
      message: (message) => ticks.take(message),
      state: (state) => this.#onState?.(guid, state),
    });
    this.#subscriptions.set(guid, { key, stream, ticks, reset: undefined });
  }

  unsubscribeBars(guid: string): void {
    const ended = this.#subscriptions.get(guid);
    this.#subscriptions.delete(guid);
    ended?.stream.close();
    clearTimeout(ended?.reset);
  }

  getServerTime(callback: (seconds: number) => void): void {
    void this.#fetched<number>("udf/time", {}).then(callback, () => undefined);
  }

  #reset(guid: string, onReset: () => void): void {
    const subscription = this.#subscriptions.get(guid);
    if (subscription === undefined || subscription.reset !== undefined) return;
    subscription.reset = setTimeout(() => {
      subscription.reset = undefined;
      onReset();
    }, RESET_MS);
  }

  #remember(key: string, bars: readonly Bar[]): void {
    this.#given.delete(key);
    this.#given.set(key, bars);
    const [oldest] = this.#given.keys();
    if (this.#given.size > MOST_REMEMBERED && oldest !== undefined) this.#given.delete(oldest);
  }

  // After the library has its bars: ticks must not come before them.
  #again(key: string): void {
    for (const one of this.#subscriptions.values()) {
      // One whose reset is still to come has not asked again for it yet.
      if (one.key === key) one.ticks.again(this.#given.get(key) ?? [], one.reset !== undefined);
    }
  }

  #fetched<T>(path: string, query: Record<string, string>): Promise<T> {
    return fetched<T>(new URL(`${path}?${new URLSearchParams(query)}`, this.#base));
  }
}

/** The service's name of a resolution: "1S" → 1s, "60" → 60m, "1D" → 1d. */
export function interval(resolution: string): string {
  const [, count, unit = ""] = /^(\d*)([SHDW]?)$/.exec(resolution) ?? [];
  if (count === undefined) throw new Error(`resolution ${resolution}: seconds, minutes, hours, days or weeks`);
  return `${count || 1}${unit.toLowerCase() || "m"}`;
}

function said(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
