/** What the page says of the token and of the bar under the crosshair, else of the last one. */

import type { Bar } from "./datafeed";
import { byId, mark, say, sayDecimal } from "./dom";
import { brief, change, compact, percent, shown } from "./price";
import type { Token } from "./tokens";

const PARTS = ["open", "high", "low", "close", "volume"] as const;

export class Legend {
  readonly #legend = byId("legend");
  #symbol = "";

  /** Another token: say nothing of the one before. */
  clear(symbol: string): void {
    this.#symbol = symbol;
    say(byId("symbol"), symbol);
    say(byId("name"), "");
    this.price(null);
    this.bar(undefined);
    for (const id of ["high", "low", "volume", "count"]) sayDecimal(byId(`day-${id}`), null);
    say(byId("day-change"), "–");
    mark(byId("day-change"), null);
  }

  /** `walked`: the keyboard went there, so that whoever does not see it is told. */
  bar(bar: Bar | undefined, walked = false): void {
    this.#legend.hidden = bar === undefined;
    if (!walked || bar === undefined) say(byId("walked"), "");
    if (bar === undefined) return;
    const at = new Date(bar.time).toISOString();
    say(byId("bar-time"), `${at.slice(0, 10)} ${at.slice(11, 19)}`);
    for (const part of PARTS) sayDecimal(byId(`bar-${part}`), bar.text[part], part === "volume" ? compact : shown);
    const percents = change(bar.text.open, bar.text.close);
    say(byId("bar-change"), percent(percents));
    mark(this.#legend, percents);
    if (walked) say(byId("walked"), `${at.slice(0, 16).replace("T", " ")}, ${PARTS.map((part) => `${part} ${bar.text[part]}`).join(", ")}`);
  }

  /** The last price: in the head of the page and in its title. */
  price(price: string | null): void {
    sayDecimal(byId("last-price"), price, brief);
    document.title = [price === null ? "" : brief(price), this.#symbol, "klines"].filter(Boolean).join(" · ");
  }

  day(token: Token): void {
    say(byId("name"), token.name ?? "");
    say(byId("day-change"), percent(token.price_change_percent_24h));
    mark(byId("day-change"), token.price_change_percent_24h);
    sayDecimal(byId("day-high"), token.high_24h, brief);
    sayDecimal(byId("day-low"), token.low_24h, brief);
    sayDecimal(byId("day-volume"), token.quote_volume_24h, compact);
    sayDecimal(byId("day-count"), String(token.trades_24h), compact);
  }
}
