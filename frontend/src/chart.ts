/**
 * The candles and volumes of a series, its axis and crosshair.
 *
 * For tests and for who automates the page, the chart's element says what is drawn: `data-bars` (how
 * many), `data-first` and `data-last` (their open times in epoch milliseconds), `data-open` (what the last bar is
 * drawn as: open, high, low, close), `data-live` (whether the latest bars are in view).
 */

import {
  type CandlestickData,
  CandlestickSeries,
  createChart,
  CrosshairMode,
  HistogramSeries,
  type IChartApi,
  type ISeriesApi,
  PriceScaleMode,
  type UTCTimestamp,
  type WhitespaceData,
} from "lightweight-charts";
import { Bars } from "./bars";
import { colours } from "./colours";
import type { Bar } from "./datafeed";
import type { View } from "./loader";
import { Scale } from "./scale";

/** Bars before the left edge at which older ones are asked for. */
const AHEAD = 100;
/** Bars of room after the last one. */
const MARGIN = 6;
const UNKNOWN = "1";
const LARGEST = 9e13;
const STEPS: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 };

export class Chart implements View {
  readonly #chart: IChartApi;
  readonly #candles: ISeriesApi<"Candlestick">;
  readonly #volumes: ISeriesApi<"Histogram">;
  #bars = new Bars();
  /** Follows the last price: how large that is, is known from the bars only. */
  #scale = new Scale(UNKNOWN);
  #volumeScale = 1;
  #colours = colours();
  /** Open times of the bars that the pointer and the keyboard are on. */
  #pointed: number | undefined;
  #walked: number | undefined;

  /**
   * `onPoint` is told the bar under the crosshair, else the last one, and whether the keyboard went there; `onOlder`
   * that the left edge is near.
   */
  constructor(
    private readonly element: HTMLElement,
    private readonly onPoint: (bar: Bar | undefined, walked: boolean) => void,
    private readonly onOlder: () => void,
  ) {
    this.#chart = createChart(element, {
      autoSize: true,
      layout: { attributionLogo: false, background: { color: "transparent" }, fontFamily: "inherit", fontSize: 11 },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, minimumWidth: 76, scaleMargins: { top: 0.12, bottom: 0.24 } },
      timeScale: { borderVisible: false, rightOffset: MARGIN, minBarSpacing: 0.4, timeVisible: true },
      localization: { tickmarksPriceFormatter: (drawn: number[]) => this.#scale.marks(drawn) },
    });
    this.#candles = this.#chart.addSeries(CandlestickSeries, { priceLineWidth: 1 });
    this.#volumes = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "",
      priceLineVisible: false,
      lastValueVisible: false,
      priceFormat: { type: "price", precision: 9, minMove: 1e-9 },
    });
    this.#volumes.priceScale().applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    this.#chart.subscribeCrosshairMove(({ time, sourceEvent }) => {
      // The chart tells its own moves too, and takes the crosshair away with them.
      if (sourceEvent === undefined && time !== undefined) return;
      this.#pointed = time === undefined ? undefined : Number(time) * 1000;
      if (sourceEvent !== undefined) this.#walked = undefined;
      this.#point();
    });
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      this.#cross();
      this.element.dataset["live"] = String(this.live);
      if (range !== null && range.from < AHEAD && this.#bars.last) this.onOlder();
    });
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("blur", () => this.#walk(undefined));
    this.paint();
    this.#apply();
  }

  /** Another series comes: forget this one. */
  clear(seconds: number): void {
    this.#chart.applyOptions({ timeScale: { secondsVisible: seconds < 60, timeVisible: seconds < 86_400 } });
    this.#volumeScale = 0;
    this.#walked = this.#pointed = undefined;
    this.#candles.priceScale().setAutoScale(true);
    this.draw(new Bars(), 0);
    this.#chart.timeScale().resetTimeScale();
  }

  logarithmic(on: boolean): void {
    this.#candles.priceScale().applyOptions({ mode: on ? PriceScaleMode.Logarithmic : PriceScaleMode.Normal });
  }

  /** Back to the latest bars. */
  latest(): void {
    this.#chart.timeScale().scrollToPosition(MARGIN, false);
  }

  get live(): boolean {
    return this.#chart.timeScale().scrollPosition() >= 0;
  }

  get seenFrom(): number | undefined {
    const range = this.#chart.timeScale().getVisibleLogicalRange();
    return range === null ? undefined : this.#timeAt(range.from);
  }

  draw(bars: Bars, added: number): void {
    const scale = this.#chart.timeScale();
    const range = added ? null : scale.getVisibleLogicalRange();
    const anchor = range === null ? undefined : this.#timeAt(range.from);
    const lookingBack = !this.live;
    this.#bars = bars;
    this.#suit(bars.last);
    if (!this.#volumeScale) this.#volumeScale = 1 / Math.max(...bars.all.map((one) => one.volume), Number.MIN_VALUE);
    if (!Number.isFinite(this.#volumeScale)) this.#volumeScale = 0;
    this.#candles.setData(bars.all.map((one) => this.#candle(one)));
    this.#volumes.setData(bars.all.map((one) => this.#volume(one)));
    // Whoever looks back keeps looking at the same bars.
    if (lookingBack && range !== null && anchor !== undefined && bars.find(anchor)) {
      const moved = bars.at(anchor) - Math.max(0, Math.floor(range.from));
      scale.setVisibleLogicalRange({ from: range.from + moved, to: range.to + moved });
    }
    this.#tell();
    this.#point();
  }

  update(bar: Bar): void {
    this.#volumeScale ||= 1 / (bar.volume || 1);
    if (this.#suit(bar)) this.#candles.setData(this.#bars.all.map((one) => this.#candle(one)));
    else this.#candles.update(this.#candle(bar));
    this.#volumes.update(this.#volume(bar));
    this.#tell();
    this.#point();
  }

  /** Take the colours from the style sheet again. */
  paint(): void {
    this.#colours = colours();
    this.#chart.applyOptions(this.#colours.chart);
    this.#candles.applyOptions(this.#colours.candles);
    this.#volumes.setData(this.#bars.all.map((one) => this.#volume(one)));
  }

  // Whether another scale was needed for this bar.
  #suit(bar: Bar | undefined): boolean {
    const price = bar?.text.close ?? UNKNOWN;
    if (this.#scale.suits(price)) return false;
    this.#scale = new Scale(price);
    this.#apply();
    return true;
  }

  #apply(): void {
    const scale = this.#scale;
    const formatter = (drawn: number): string => scale.label(drawn);
    this.#candles.applyOptions({ priceFormat: { type: "custom", minMove: scale.step, formatter } });
    // A range that somebody has chosen was one of the scale before.
    this.#candles.priceScale().setAutoScale(true);
  }

  #candle(bar: Bar): { time: UTCTimestamp; open: number; high: number; low: number; close: number } | { time: UTCTimestamp } {
    const time = (bar.time / 1000) as UTCTimestamp;
    const [open, high, low, close] = [bar.text.open, bar.text.high, bar.text.low, bar.text.close].map((text) =>
      this.#scale.drawn(text),
    ) as [number, number, number, number];
    // What the chart cannot draw is left out of it; the legend and the list still tell it.
    return high < LARGEST ? { time, open, high, low, close } : { time };
  }

  #volume(bar: Bar): { time: UTCTimestamp; value: number; color: string } {
    const color = bar.close >= bar.open ? this.#colours.upVolume : this.#colours.downVolume;
    const value = Math.min(LARGEST, bar.volume * this.#volumeScale);
    return { time: (bar.time / 1000) as UTCTimestamp, value, color };
  }

  // Open time of the bar drawn at a place that need not be whole.
  #timeAt(logical: number): number | undefined {
    const drawn = this.#candles.dataByIndex(Math.max(0, Math.floor(logical)));
    return drawn === null ? undefined : Number(drawn.time) * 1000;
  }

  #key(event: KeyboardEvent): void {
    // These are the browser's: back, forward.
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") this.#walk(undefined);
    const last = this.#bars.all.length - 1;
    const from = this.#walked === undefined ? last + 1 : this.#bars.at(this.#walked);
    const wanted = event.key === "Home" ? 0 : event.key === "End" ? last : from + (STEPS[event.key] ?? NaN);
    const at = Math.min(last, Math.max(0, wanted));
    const bar = this.#bars.all[at];
    if (bar === undefined) return;
    event.preventDefault();
    const scale = this.#chart.timeScale();
    const range = scale.getVisibleLogicalRange();
    if (range !== null && (at < range.from || at > range.to)) scale.scrollToPosition(at - last, false);
    this.#walk(bar.time);
  }

  #walk(time: number | undefined): void {
    this.#walked = time;
    if (time === undefined) this.#chart.clearCrosshairPosition();
    this.#cross();
    this.#point();
  }

  // Where the keyboard is.
  #cross(): void {
    const bar = this.#walked === undefined ? undefined : this.#bars.find(this.#walked);
    if (bar === undefined) return;
    const price = this.#scale.drawn(bar.text.close);
    this.#chart.setCrosshairPosition(price, (bar.time / 1000) as UTCTimestamp, this.#candles);
  }

  #point(): void {
    const time = this.#walked ?? this.#pointed;
    this.onPoint((time === undefined ? undefined : this.#bars.find(time)) ?? this.#bars.last, this.#walked !== undefined);
  }

  #tell(): void {
    const count = this.#bars.all.length;
    const last = (count ? this.#candles.dataByIndex(count - 1) : null) as CandlestickData | WhitespaceData | null;
    Object.assign(this.element.dataset, {
      bars: String(count),
      first: String(this.#bars.first?.time ?? ""),
      last: String(this.#bars.last?.time ?? ""),
      open: last && "open" in last ? [last.open, last.high, last.low, last.close].join(" ") : "",
    });
  }
}
