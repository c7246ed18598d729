/** The page: what the address names is what is shown; everything else follows from it. */

import { onRefused, useKey } from "./access";
import { fragment, INTERVALS, intervalOf, place, type Place } from "./address";
import { Chart } from "./chart";
import { startControls } from "./controls";
import { Datafeed, type SymbolInfo, type State } from "./datafeed";
import { byId, element, say } from "./dom";
import { Legend } from "./legend";
import { Loader } from "./loader";
import { Tape } from "./tape";
import { startTheme } from "./theme";
import { Tokens, type Token } from "./tokens";
import { fetched } from "./udf";

const WORDS: Record<State, string> = {
  connecting: "Connecting",
  live: "Live",
  stale: "Stale: the service has lost its database",
  reconnecting: "Reconnecting",
};
const WORST: readonly State[] = ["reconnecting", "stale", "connecting", "live"];

class Page {
  readonly #base = new URL("./", location.href);
  readonly #states = { chart: "connecting" as State, tape: "connecting" as State };
  readonly #feed = new Datafeed(this.#base, (_, state) => this.#tellState({ chart: state }));
  readonly #legend = new Legend();
  readonly #chart = new Chart(
    byId("chart"),
    (bar, walked) => this.#legend.bar(bar, walked),
    () => this.#loader?.older(),
  );
  readonly #tape = new Tape(this.#base, (state) => this.#tellState({ tape: state }));
  readonly #tokens = new Tokens(this.#base, (symbol) => this.#go({ symbol }), (found, searched) => this.#found(found, searched));
  #place: Place = { symbol: "", interval: "" };
  #loader: Loader | undefined;
  #resolving = 0;
  #unknown = false;

  start(): void {
    startTheme(byId<HTMLButtonElement>("theme"), () => this.#chart.paint());
    startControls(this.#chart);
    this.#offerIntervals();
    for (const button of document.querySelectorAll<HTMLButtonElement>("[data-tab]")) {
      button.addEventListener("click", () => this.#tab(button.dataset["tab"] ?? "chart"));
    }
    document.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("hashchange", () => this.#follow());
    onRefused((known) => this.#askForKey(known));
    say(byId("origin"), new URL("api/v1/trades", this.#base).href);
    this.#follow();
  }

  // The service wants a key; with it the page begins again.
  #askForKey(known: boolean): void {
    const dialog = byId<HTMLDialogElement>("access");
    say(byId("access-why"), known ? "This key is not valid, or may not read." : "");
    if (dialog.open) return;
    byId<HTMLFormElement>("access-form").onsubmit = (event) => {
      event.preventDefault();
      useKey(byId<HTMLInputElement>("access-key").value.trim());
      location.reload();
    };
    dialog.showModal();
  }

  // Show what the address names.
  #follow(): void {
    const wanted = place(location.hash);
    const before = this.#place;
    this.#place = wanted;
    for (const radio of document.querySelectorAll<HTMLInputElement>("#intervals input")) {
      radio.checked = radio.value === wanted.interval;
    }
    if (wanted.symbol === "") return;
    this.#tokens.chosen = wanted.symbol;
    // At once: nothing of one token or interval may stand under the name of another.
    if (wanted.symbol !== before.symbol) {
      this.#legend.clear(wanted.symbol);
      this.#tape.close();
      this.#tellState({ tape: "connecting" });
    }
    this.#notice("");
    this.#chart.clear(intervalOf(wanted.interval).seconds);
    this.#tellState({ chart: "connecting" });
    this.#open(wanted);
  }

  #open(wanted: Place): void {
    const turn = ++this.#resolving;
    this.#loader?.close();
    this.#loader = undefined;
    this.#unknown = false;
    this.#feed.resolveSymbol(
      wanted.symbol,
      (info) => {
        if (turn !== this.#resolving) return;
        // Symbols are compared without regard to the case of ASCII letters, and shown in one spelling.
        if (info.ticker === wanted.symbol) this.#show(info, wanted);
        else location.replace(fragment({ ...wanted, symbol: info.ticker }));
      },
      (reason) => {
        if (turn !== this.#resolving) return;
        this.#unknown = true;
        // The service has answered; there is no stream of which more could be said.
        if (reason === "unknown_symbol") this.#tellState({ chart: "live", tape: "live" });
        else this.#tellState({ chart: "reconnecting" });
        if (reason === "unknown_symbol") this.#notice("unknown-token");
      },
    );
  }

  #show(info: SymbolInfo, wanted: Place): void {
    void this.#day(info.ticker);
    this.#tape.show(info.ticker);
    const chart = this.#chart;
    this.#loader = new Loader(this.#feed, info, intervalOf(wanted.interval).resolution, {
      get seenFrom() {
        return chart.seenFrom;
      },
      get live() {
        return chart.live;
      },
      draw: (bars, added) => {
        chart.draw(bars, added);
        this.#moved();
      },
      update: (bar) => {
        chart.update(bar);
        this.#moved();
      },
    });
  }

  // The last bar is another one, or there is none.
  #moved(): void {
    const last = this.#loader?.bars.last;
    this.#notice(last ? "" : "empty-token");
    if (!last) return;
    this.#legend.price(last.text.close);
    this.#tokens.price(this.#place.symbol, last.text.close);
  }

  #found(found: readonly Token[] | undefined, searched: boolean): void {
    if (!this.#place.symbol) {
      // No stream tells whether the service is there.
      const state = found === undefined ? "reconnecting" : "live";
      this.#tellState({ chart: state, tape: state });
    }
    if (found === undefined) return;
    if (!this.#place.symbol) {
      this.#notice(found.length || searched ? "" : "no-tokens");
      if (found[0] && !searched) location.replace(fragment({ symbol: found[0].symbol, interval: this.#place.interval }));
      return;
    }
    const wanted = this.#place;
    // Unknown or out of reach a moment ago.
    if (this.#unknown) this.#open(wanted);
    void this.#day(wanted.symbol, found);
  }

  // Tell of the token's last day, from the list if it is there.
  async #day(symbol: string, found: readonly Token[] = []): Promise<void> {
    const token = found.find((one) => one.symbol === symbol) ?? (await this.#token(symbol));
    if (token && symbol === this.#place.symbol) this.#legend.day(token);
  }

  async #token(symbol: string): Promise<Token | undefined> {
    try {
      return await fetched<Token>(new URL(`api/v1/tokens/${encodeURIComponent(symbol)}`, this.#base));
    } catch {
      return undefined;
    }
  }

  #go(change: Partial<Place>): void {
    const wanted = fragment({ ...this.#place, ...change });
    // Another token is another place to come back to; an interval is not.
    if (location.hash !== wanted && change.symbol !== undefined) location.hash = wanted;
    else if (location.hash !== wanted) location.replace(wanted);
    this.#tab("chart");
  }

  #tellState(change: Partial<Record<"chart" | "tape", State>>): void {
    Object.assign(this.#states, change);
    const state = WORST.find((one) => Object.values(this.#states).includes(one)) ?? "live";
    byId("state").dataset["state"] = state;
    say(byId("state"), WORDS[state]);
  }

  // One of the notices in the page's HTML, or none.
  #notice(id: string): void {
    for (const notice of document.querySelectorAll<HTMLElement>(".notice")) notice.hidden = notice.id !== id;
  }

  #tab(name: string): void {
    document.body.dataset["tab"] = name;
    for (const button of document.querySelectorAll<HTMLElement>("[data-tab]")) {
      if (button instanceof HTMLButtonElement) button.setAttribute("aria-pressed", String(button.dataset["tab"] === name));
    }
  }

  #key(event: KeyboardEvent): void {
    const typing = event.target instanceof HTMLInputElement && event.target.type !== "radio";
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.#tab("tokens");
    this.#tokens.focus();
  }

  #offerIntervals(): void {
    const group = byId("intervals");
    for (const { name } of INTERVALS) {
      const label = element("label", "interval");
      const radio = document.createElement("input");
      Object.assign(radio, { type: "radio", name: "interval", value: name });
      radio.addEventListener("change", () => this.#go({ interval: name }));
      label.append(radio, element("span", "", name));
      group.append(label);
    }
  }
}

new Page().start();
