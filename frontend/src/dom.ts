/** The page's elements, and numbers put into them. */

import { direction, shown } from "./price";

/** The element with this id; the page's own HTML has it. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found as T;
}

export function element(name: string, className: string, text = ""): HTMLElement {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/** Set text only where it differs, so that nothing is laid out again for nothing. */
export function say(target: HTMLElement, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}

/** A decimal, readable; in full as its title and in `data-value`. */
export function sayDecimal(target: HTMLElement, text: string | null, readable: (text: string) => string = shown): void {
  say(target, text === null ? "–" : readable(text));
  target.title = text ?? "";
  target.dataset["value"] = text ?? "";
}

/** Mark which way a number goes, for colour and for the arrow before it. */
export function mark(target: HTMLElement, change: string | null): void {
  target.dataset["direction"] = { [-1]: "down", [0]: "flat", [1]: "up" }[direction(change)];
}
