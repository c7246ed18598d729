/** The chart's colours, from the style sheet as it is at this moment. */

import type { CandlestickStyleOptions, ChartOptions, DeepPartial } from "lightweight-charts";

export interface Colours {
  readonly chart: DeepPartial<ChartOptions>;
  readonly candles: DeepPartial<CandlestickStyleOptions>;
  readonly upVolume: string;
  readonly downVolume: string;
}

export function colours(): Colours {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const [up, down, line] = [colour("up"), colour("down"), colour("grid")];
  const cross = { color: colour("cross"), labelBackgroundColor: colour("label") };
  return {
    chart: {
      layout: { textColor: colour("muted"), fontFamily: style.getPropertyValue("--font") },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      crosshair: { vertLine: cross, horzLine: cross },
    },
    candles: {
      ...{ upColor: up, downColor: down, borderUpColor: up, borderDownColor: down },
      ...{ wickUpColor: up, wickDownColor: down },
    },
    upVolume: colour("up-volume"),
    downVolume: colour("down-volume"),
  };
}
