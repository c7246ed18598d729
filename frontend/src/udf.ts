/** The service's `/udf` answers, with the text of every number kept: bars to the last digit. */

import { ask } from "./access";

/** Decimals of a bar as the service wrote them. */
export interface BarText {
  readonly open: string;
  readonly high: string;
  readonly low: string;
  readonly close: string;
  readonly volume: string;
}

/** A bar as the Datafeed API wants it: epoch milliseconds and numbers. `text` is ours, beside it; the API ignores it. */
export interface Bar {
  readonly time: number;
  readonly open: number;
  readonly high: number;
  readonly low: number;
  readonly close: number;
  readonly volume: number;
  readonly text: BarText;
}

interface Columns {
  readonly t: number[];
  readonly o: string[];
  readonly h: string[];
  readonly l: string[];
  readonly c: string[];
  readonly v: string[];
}

type Answer = ({ s: "ok" } & Columns) | { s: "no_data" } | { s: "error"; errmsg: string };

const TIMEOUT_MS = 15_000;

/** The JSON at `address`; throws what the service says is wrong, or that it cannot be reached. */
export async function fetched<T>(address: URL, read: (text: string) => unknown = JSON.parse): Promise<T> {
  const answer = await ask(address, { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" });
  const body = read(await answer.text()) as { s?: string; errmsg?: string; detail?: string };
  if (body.s === "error" || !answer.ok) throw new Error(body.errmsg ?? body.detail ?? `HTTP ${answer.status}`);
  return body as T;
}

/** The latest `count` bars that open before `to` (epoch seconds), strictly ascending; empty: there is none. */
export async function history(
  base: URL,
  query: { symbol: string; resolution: string; from: number; to: number; countback: number },
): Promise<Bar[]> {
  const address = new URL("udf/history", base);
  for (const [name, value] of Object.entries(query)) address.searchParams.set(name, String(value));
  const answer = await fetched<Answer>(address, exact);
  if (answer.s !== "ok") return [];
  const bars = answer.t.map((time, at) =>
    bar(time * 1000, {
      open: answer.o[at] ?? "",
      high: answer.h[at] ?? "",
      low: answer.l[at] ?? "",
      close: answer.c[at] ?? "",
      volume: answer.v[at] ?? "",
    }),
  );
  return bars.filter((one, at) => one.time < query.to * 1000 && one.time > (bars[at - 1]?.time ?? -Infinity));
}

/** A bar from the texts of its decimals. */
export function bar(time: number, text: BarText): Bar {
  return {
    time,
    open: Number(text.open),
    high: Number(text.high),
    low: Number(text.low),
    close: Number(text.close),
    volume: Number(text.volume),
    text,
  };
}

// JSON with the decimals in columns as the text they were written with. Not every browser hands the source of a number
// to a reviver; a regular expression does the same everywhere, as the answer is ours: columns of plain numbers.
function exact(text: string): unknown {
  return JSON.parse(text.replace(/"([ohlcv])":\[([^\]]*)\]/g, (_, name, list) => `"${name}":[${quoted(list)}]`));
}

function quoted(list: string): string {
  return list && `"${list.replaceAll(",", '","')}"`;
}
