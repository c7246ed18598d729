/**
 * The candles and volumes of a series, its axis and crosshair.
 *
 * Prices are scaled by a power of ten that suits the token, as the chart's own arithmetic ends at 1e-14; labels are
 * scaled back. For tests and for who automates the page, the chart's element says what is drawn: `data-bars` (how
 * many), `data-first` and `data-last` (their open times in epoch milliseconds), `data-open` (what the last bar is
 * drawn as: open, high, low, close).
 */

import {
  CandlestickSeries,
  createChart,
  CrosshairMode,
  HistogramSeries,
  type IChartApi,
  type ISeriesApi,
  type UTCTimestamp,
} from "lightweight-charts";
import { Bars } from "./bars";
import type { Bar } from "./datafeed";
import type { View } from "./loader";
import { axis, magnitude } from "./price";

/** Bars before the left edge at which older ones are asked for. */
const AHEAD = 100;
const COMFORTABLE = 4;
const LARGEST = 9e13;
const STEPS: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 };

export class Chart implements View {
  readonly #chart: IChartApi;
  readonly #candles: ISeriesApi<"Candlestick">;
  readonly #volumes: ISeriesApi<"Histogram">;
  #bars = new Bars();
  #scale = 0;
  #volumeScale = 1;
  #decimals = 8;
  #colours = { up: "", down: "", upVolume: "", downVolume: "" };
  /** Open times of the bars that the pointer and the keyboard are on. */
  #pointed: number | undefined;
  #walked: number | undefined;

  /** `onPoint` is told the bar under the crosshair, else the last one; `onOlder` that the left edge is near. */
  constructor(
    private readonly element: HTMLElement,
    private readonly onPoint: (bar: Bar | undefined) => void,
    private readonly onOlder: () => void,
  ) {
    this.#chart = createChart(element, {
      autoSize: true,
      layout: { attributionLogo: false, background: { color: "transparent" }, fontFamily: "inherit", fontSize: 11 },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, minimumWidth: 76, scaleMargins: { top: 0.12, bottom: 0.24 } },
      timeScale: { borderVisible: false, rightOffset: 6, minBarSpacing: 0.4, timeVisible: true },
      localization: { tickmarksPriceFormatter: (prices: number[]) => this.#marks(prices) },
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
      if (range !== null && range.from < AHEAD && this.#bars.last) this.onOlder();
    });
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("blur", () => this.#walk(undefined));
    this.paint();
  }

  /** Another series comes: forget this one. `decimals` are those of its price axis, `price` one of its prices. */
  clear(seconds: number, decimals: number, price: string | null): void {
    const power = magnitude(price ?? "1");
    this.#scale = Math.abs(power) > COMFORTABLE ? -power : 0;
    this.#decimals = decimals;
    const minMove = 10 ** -Math.min(12, Math.max(0, decimals - this.#scale));
    this.#candles.applyOptions({ priceFormat: { type: "custom", minMove, formatter: (p: number) => this.#label(p) } });
    this.#chart.applyOptions({ timeScale: { secondsVisible: seconds < 60, timeVisible: seconds < 86_400 } });
    this.#volumeScale = 0;
    this.#walked = this.#pointed = undefined;
    this.#candles.priceScale().setAutoScale(true);
    this.draw(new Bars(), 0);
    this.#chart.timeScale().resetTimeScale();
  }

  get seenFrom(): number | undefined {
    const range = this.#chart.timeScale().getVisibleLogicalRange();
    return range === null ? undefined : this.#timeAt(range.from);
  }

  draw(bars: Bars, added: number): void {
    const scale = this.#chart.timeScale();
    const range = added ? null : scale.getVisibleLogicalRange();
    const anchor = range === null ? undefined : this.#timeAt(range.from);
    const lookingBack = scale.scrollPosition() < 0;
    this.#bars = bars;
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
    this.#candles.update(this.#candle(bar));
    this.#volumes.update(this.#volume(bar));
    this.#tell();
    this.#point();
  }

  /** Take the colours from the style sheet again. */
  paint(): void {
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string): string => style.getPropertyValue(`--${name}`).trim();
    const [up, down, line] = [colour("up"), colour("down"), colour("grid")];
    this.#colours = { up, down, upVolume: colour("up-volume"), downVolume: colour("down-volume") };
    this.#chart.applyOptions({
      layout: { textColor: colour("muted"), fontFamily: style.getPropertyValue("--font") },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      crosshair: {
        vertLine: { color: colour("cross"), labelBackgroundColor: colour("label") },
        horzLine: { color: colour("cross"), labelBackgroundColor: colour("label") },
      },
    });
    this.#candles.applyOptions({
      ...{ upColor: up, downColor: down, borderUpColor: up, borderDownColor: down },
      ...{ wickUpColor: up, wickDownColor: down },
    });
    this.#volumes.setData(this.#bars.all.map((one) => this.#volume(one)));
  }

  #candle(bar: Bar): { time: UTCTimestamp; open: number; high: number; low: number; close: number } | { time: UTCTimestamp } {
    const time = (bar.time / 1000) as UTCTimestamp;
    const [open, high, low, close] = [bar.text.open, bar.text.high, bar.text.low, bar.text.close].map((text) =>
      Number(`${text}e${this.#scale}`),
    ) as [number, number, number, number];
    // What the chart cannot draw is left out of it; the legend and the list still tell it.
    return high < LARGEST ? { time, open, high, low, close } : { time };
  }

  #volume(bar: Bar): { time: UTCTimestamp; value: number; color: string } {
    const color = bar.close >= bar.open ? this.#colours.upVolume : this.#colours.downVolume;
    const value = Math.min(LARGEST, bar.volume * this.#volumeScale);
    return { time: (bar.time / 1000) as UTCTimestamp, value, color };
  }

  #label(price: number): string {
    return axis(price / 10 ** this.#scale, this.#decimals);
  }

  // As many decimals as tell the marks apart; below zero there are no prices.
  #marks(prices: readonly number[]): string[] {
    const texts = prices.map((price) => (price / 10 ** this.#scale).toFixed(this.#decimals));
    const spare = Math.min(...texts.map((text) => /\.?0*$/.exec(text)?.[0].replace(".", "").length ?? 0));
    return prices.map((price) => (price < 0 ? "" : axis(price / 10 ** this.#scale, this.#decimals - spare)));
  }

  // Open time of the bar drawn at a place that need not be whole.
  #timeAt(logical: number): number | undefined {
    const drawn = this.#candles.dataByIndex(Math.max(0, Math.floor(logical)));
    return drawn === null ? undefined : Number(drawn.time) * 1000;
  }

  #key(event: KeyboardEvent): void {
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
    const price = Number(`${bar.text.close}e${this.#scale}`);
    this.#chart.setCrosshairPosition(price, (bar.time / 1000) as UTCTimestamp, this.#candles);
  }

  #point(): void {
    const time = this.#walked ?? this.#pointed;
    this.onPoint((time === undefined ? undefined : this.#bars.find(time)) ?? this.#bars.last);
  }

  #tell(): void {
    const drawn = this.#candles.data();
    const last = drawn.at(-1);
    Object.assign(this.element.dataset, {
      bars: String(drawn.length),
      first: String(this.#bars.first?.time ?? ""),
      last: String(this.#bars.last?.time ?? ""),
      open: last && "open" in last ? [last.open, last.high, last.low, last.close].join(" ") : "",
    });
  }
}
