/** What the page shows, as the address says it: `#WIFHAT-USDC/1m`, so that a link can be shared. */

export interface Place {
  readonly symbol: string;
  readonly interval: string;
}

/** The page's intervals: the name in the address and on the button, the datafeed's resolution, the width. */
export const INTERVALS = [
  { name: "1s", resolution: "1S", seconds: 1 },
  { name: "5s", resolution: "5S", seconds: 5 },
  { name: "15s", resolution: "15S", seconds: 15 },
  { name: "1m", resolution: "1", seconds: 60 },
  { name: "5m", resolution: "5", seconds: 300 },
  { name: "15m", resolution: "15", seconds: 900 },
  { name: "1h", resolution: "60", seconds: 3_600 },
  { name: "4h", resolution: "240", seconds: 14_400 },
  { name: "1d", resolution: "1D", seconds: 86_400 },
  { name: "1w", resolution: "1W", seconds: 604_800 },
] as const;

export type Interval = (typeof INTERVALS)[number];

const DEFAULT_INTERVAL = "1m";

/** What a fragment asks for; the symbol is empty where it names none, an unknown interval is a minute. */
export function place(fragment: string): Place {
  const [symbol = "", interval = ""] = fragment.replace(/^#/, "").split("/").map(decoded);
  return { symbol, interval: intervalOf(interval).name };
}

export function fragment(place: Place): string {
  return `#${encodeURIComponent(place.symbol)}/${place.interval}`;
}

export function intervalOf(name: string): Interval {
  const named = (wanted: string): Interval | undefined => INTERVALS.find((one) => one.name === wanted);
  return named(name) ?? (named(DEFAULT_INTERVAL) as Interval);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
