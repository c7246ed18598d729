/** The list of tokens: searched and sorted by the service, asked again every few seconds, reachable by keyboard. */

import { byId, element, mark, say, sayDecimal } from "./dom";
import { brief, compact, percent } from "./price";
import { fetched } from "./udf";

export interface Token {
  readonly symbol: string;
  readonly name: string | null;
  readonly last_price: string | null;
  readonly price_change_percent_24h: string | null;
  readonly high_24h: string | null;
  readonly low_24h: string | null;
  readonly volume_24h: string;
  readonly quote_volume_24h: string;
  readonly trades_24h: number;
}

const REFRESH_MS = 3_000;
const TYPING_MS = 150;
const PAGE = 100;
const MOST = 1_000;
const MOVES: Record<string, (at: number, last: number) => number> = {
  ArrowDown: (at, last) => Math.min(at + 1, last),
  ArrowUp: (at) => Math.max(at - 1, 0),
  Home: () => 0,
  End: (_, last) => last,
};

export class Tokens {
  readonly #list = byId("tokens");
  readonly #search = byId<HTMLInputElement>("search");
  readonly #more = byId<HTMLButtonElement>("more-tokens");
  readonly #empty = byId("no-match");
  readonly #rows = new Map<string, HTMLElement>();
  #found: readonly Token[] = [];
  #sort = "volume";
  #limit = PAGE;
  #active = "";
  #chosen = "";
  #asked = 0;
  /** What the list that is shown was asked with. */
  #query = "";
  #searched = "";
  /** Enter was pressed before the answer to what was typed had come. */
  #entered = false;
  /** The pointer is in the list: rows stay where they are, so that a press meets what it was meant for. */
  #held = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `onChoose`: a token is chosen; `onFound`: the list is fresh, `undefined` if the service cannot be asked. */
  constructor(
    private readonly base: URL,
    private readonly onChoose: (symbol: string) => void,
    private readonly onFound: (tokens: readonly Token[] | undefined, searched: boolean) => void,
  ) {
    this.#search.addEventListener("input", () => {
      this.#active = "";
      this.#entered = false;
      this.#mark();
      this.#ask(TYPING_MS);
    });
    for (const type of ["pointerenter", "pointerleave"]) {
      this.#list.addEventListener(type, () => (this.#held = type === "pointerenter"));
    }
    document.addEventListener("visibilitychange", () => this.#ask(0));
    for (const target of [this.#search, this.#list]) target.addEventListener("keydown", (event) => this.#key(event));
    this.#list.addEventListener("click", (event) => {
      const row = (event.target as HTMLElement).closest<HTMLElement>("[role=option]");
      if (row) this.#choose(row.dataset["symbol"] ?? "");
    });
    for (const button of document.querySelectorAll<HTMLButtonElement>("[data-sort]")) {
      button.addEventListener("click", () => this.#order(button.dataset["sort"] ?? "symbol"));
    }
    this.#more.addEventListener("click", () => {
      this.#limit = Math.min(MOST, this.#limit + PAGE);
      this.#ask(0);
    });
    this.#order(this.#sort);
  }

  /** Mark the token that is shown. */
  set chosen(symbol: string) {
    this.#chosen = symbol;
    // What is typed goes on counting.
    if (!this.#search.value) this.#active = symbol;
    this.#mark();
  }

  /** The token's last price, as the chart has just heard it. */
  price(symbol: string, price: string): void {
    const cell = this.#rows.get(symbol)?.children[1];
    if (cell) sayDecimal(cell as HTMLElement, price, brief);
  }

  focus(): void {
    this.#search.focus();
    this.#search.select();
  }

  #order(sort: string): void {
    this.#sort = sort;
    for (const button of document.querySelectorAll<HTMLElement>("[data-sort]")) {
      button.setAttribute("aria-pressed", String(button.dataset["sort"] === sort));
    }
    this.#ask(0);
  }

  #ask(delay: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#refresh(), delay);
  }

  async #refresh(): Promise<void> {
    // Nobody looks; it is asked at once when somebody does.
    if (document.hidden) return;
    const turn = ++this.#asked;
    const search = this.#search.value.trim();
    const query = new URLSearchParams({ sort: this.#sort, limit: String(this.#limit), ...(search && { search }) });
    try {
      const address = new URL(`api/v1/tokens?${query}`, this.base);
      const { tokens } = await fetched<{ tokens: readonly Token[] }>(address);
      // What was typed or clicked since then is on its way.
      if (turn !== this.#asked) return;
      this.#show(this.#held && String(query) === this.#query ? kept(this.#found, tokens) : tokens);
      [this.#query, this.#searched] = [String(query), search];
      this.onFound(tokens, search !== "");
      if (this.#entered) this.#enter();
    } catch {
      if (turn === this.#asked) this.onFound(undefined, search !== "");
    }
    if (turn === this.#asked) this.#ask(REFRESH_MS);
  }

  #show(tokens: readonly Token[]): void {
    this.#found = tokens;
    const rows = tokens.map((token) => filled(this.#rows.get(token.symbol) ?? made(token.symbol), token));
    if (rows.some((row, at) => this.#list.children[at] !== row) || rows.length !== this.#list.childElementCount) {
      this.#list.replaceChildren(...rows);
    }
    this.#rows.clear();
    for (const row of rows) this.#rows.set(row.dataset["symbol"] ?? "", row);
    this.#empty.hidden = rows.length > 0;
    say(this.#empty, this.#search.value ? "No token matches." : "No tokens yet.");
    this.#more.hidden = rows.length < this.#limit || this.#limit >= MOST;
    this.#mark();
  }

  #mark(): void {
    for (const [symbol, row] of this.#rows) {
      row.setAttribute("aria-selected", String(symbol === this.#chosen));
      row.classList.toggle("active", symbol === this.#active);
    }
    const active = this.#rows.get(this.#active)?.id ?? "";
    for (const target of [this.#search, this.#list]) target.setAttribute("aria-activedescendant", active);
  }

  #key(event: KeyboardEvent): void {
    const move = MOVES[event.key];
    const inText = event.target === this.#search && (event.key === "Home" || event.key === "End");
    if (move && !inText) {
      const at = this.#found.findIndex((token) => token.symbol === this.#active);
      this.#active = this.#found[move(at, this.#found.length - 1)]?.symbol ?? "";
      this.#mark();
      this.#rows.get(this.#active)?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") {
      this.#enter();
    } else if (event.key === "Escape" && this.#search.value) {
      this.#search.value = "";
      this.#entered = false;
      this.#ask(0);
    } else {
      return;
    }
    event.preventDefault();
  }

  // To what was chosen with the arrows, else to what was typed, else to the first; once the list is of what was typed.
  #enter(): void {
    const typed = this.#search.value.trim();
    this.#entered = typed !== this.#searched;
    if (this.#entered) {
      this.#ask(0);
      return;
    }
    const exact = this.#found.find((token) => token.symbol.toLowerCase() === typed.toLowerCase());
    const symbol = this.#rows.has(this.#active) ? this.#active : (exact ?? this.#found[0])?.symbol;
    if (symbol !== undefined) this.#choose(symbol);
  }

  #choose(symbol: string): void {
    this.#active = symbol;
    this.onChoose(symbol);
  }
}

// The tokens of before in their order, as they are now.
function kept(before: readonly Token[], now: readonly Token[]): readonly Token[] {
  const fresh = new Map(now.map((token) => [token.symbol, token]));
  return before.map((token) => fresh.get(token.symbol) ?? token);
}

let rows = 0;

function made(symbol: string): HTMLElement {
  const row = element("li", "token");
  row.setAttribute("role", "option");
  row.id = `token-${++rows}`;
  row.dataset["symbol"] = symbol;
  const about = element("span", "about");
  about.append(element("span", "volume"), element("span", "title"));
  row.append(element("b", "symbol", symbol), element("span", "price"), about, element("span", "change"));
  return row;
}

function filled(row: HTMLElement, token: Token): HTMLElement {
  const [, price, about, change] = row.children as unknown as HTMLElement[];
  const [volume, title] = (about?.children ?? []) as unknown as HTMLElement[];
  if (title) say(title, token.name ?? "");
  if (price) sayDecimal(price, token.last_price, brief);
  if (change) {
    say(change, percent(token.price_change_percent_24h));
    mark(change, token.price_change_percent_24h);
  }
  if (volume) sayDecimal(volume, token.quote_volume_24h, (text) => `Vol ${compact(text)}`);
  return row;
}
