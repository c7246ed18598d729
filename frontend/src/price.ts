/**
 * Decimals as text: exact where the service sent text, readable however small. Pure.
 *
 * The service sends fixed-point text without superfluous zeros ("0.00000123"). A tiny number is shown with its zeros
 * counted, 0.0₅123 for 0.00000123: the field's way, and every digit is still there.
 */

const SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉";
const FOLDED_ZEROS = 4;
/** What `Number.toFixed` can do. */
const MOST_DECIMALS = 100;
/** From here on up digits after the first four are of no use where there is little room. */
const LONG_POWER = 9;
/** What a column of prices has room for. */
const LONG = 14;
const UNITS = ["", "K", "M", "B", "T", "Q"];

/** The text with at least `FOLDED_ZEROS` zeros after the point folded into their count; no digit is lost. */
export function shown(text: string): string {
  const found = /^(-?)0\.(0+)([1-9]\d*)$/.exec(text);
  const [, sign = "", zeros = "", digits = ""] = found ?? [];
  return zeros.length < FOLDED_ZEROS ? text : `${sign}0.0${subscript(zeros.length)}${digits}`;
}

/** A finite number as the shortest fixed-point text that reads as the same number: never an exponent. */
export function fixed(value: number): string {
  const [mantissa = "", power] = String(value).split("e");
  return power === undefined ? mantissa : moved(mantissa, Number(power));
}

/** Fixed-point text times ten to the power of `places`, exactly, without superfluous zeros. */
export function moved(text: string, places: number): string {
  const sign = text.startsWith("-") ? "-" : "";
  const [whole = "", fraction = ""] = text.slice(sign.length).split(".");
  const digits = whole + fraction;
  const point = whole.length + places;
  const padded = "0".repeat(Math.max(0, -point)) + digits + "0".repeat(Math.max(0, point - digits.length));
  const at = Math.max(0, point);
  const left = padded.slice(0, at).replace(/^0+(?=\d)/, "") || "0";
  const right = padded.slice(at).replace(/0+$/, "");
  return left === "0" && right === "" ? "0" : sign + left + (right && `.${right}`);
}

/** The power of ten of the leading digit: 0 for 1.5, -6 for 0.00000123; 0 for zero. */
export function magnitude(text: string): number {
  const [whole = "", fraction = ""] = text.replace("-", "").split(".");
  const left = whole.replace(/^0+/, "");
  if (left) return left.length - 1;
  const digit = fraction.search(/[1-9]/);
  return digit < 0 ? 0 : -digit - 1;
}

/** What was drawn for a price, ten to the `places` times as large, as an axis shows the price: never an exponent. */
export function axis(drawn: number, decimals: number, places = 0): string {
  const text = rounded(drawn, decimals, places);
  if (!/[1-9]/.test(text)) return "0";
  return magnitude(text) >= LONG_POWER ? compact(text) : shown(text);
}

/** The marks of an axis: as many decimals as tell them apart; below zero there are no prices. */
export function marks(drawn: readonly number[], decimals: number, places = 0): string[] {
  const texts = drawn.map((one) => rounded(one, decimals, places));
  const spare = Math.min(...texts.map((text) => /\.(?:.*[1-9])?(0*)$/.exec(text)?.[1]?.length ?? 0));
  return drawn.map((one) => (one < 0 ? "" : axis(one, decimals - spare, places)));
}

/** Four digits and a unit, for columns in which the order of magnitude matters: 1.234M; small ones as `shown`. */
export function compact(text: string): string {
  const power = magnitude(text);
  if (power < 3) return shown(short(text, Math.max(0, 3 - power)));
  const step = Math.min(UNITS.length - 1, Math.floor(power / 3));
  return short(moved(text, -3 * step), Math.max(0, 3 - (power - 3 * step))) + UNITS[step];
}

/** A price where there is little room: as `shown`, and a long one cut. */
export function brief(text: string): string {
  const whole = shown(text);
  if (whole.length <= LONG) return whole;
  const power = magnitude(text);
  return power >= LONG_POWER ? compact(text) : shown(short(text, Math.max(2, 7 - power)));
}

/** A change in percent with its sign and two decimals, from text; "–" where there is none. */
export function percent(text: string | null): string {
  if (text === null) return "–";
  const value = Number(text);
  if (magnitude(text) >= 6) return `${value > 0 ? "+" : ""}${compact(text)}%`;
  const places = Math.abs(value) >= 1000 ? 0 : 2;
  return `${value > 0 ? "+" : ""}${value.toFixed(places).replace(/^-(0(?:\.0+)?)$/, "$1")}%`;
}

/** Less than, equal to or greater than zero as `a` is to `b`: fixed-point texts of zero or more, exactly. */
export function compared(a: string, b: string): number {
  const [wholeA = "", fractionA = ""] = plain(a);
  const [wholeB = "", fractionB = ""] = plain(b);
  if (wholeA.length !== wholeB.length) return wholeA.length - wholeB.length;
  // Digits of equal length, and digits after a point, are in the order of their text.
  const [left, right] = wholeA === wholeB ? [fractionA, fractionB] : [wholeA, wholeB];
  return left < right ? -1 : left > right ? 1 : 0;
}

/** -1, 0 or 1: whether the number goes down or up. */
export function direction(text: string | null): -1 | 0 | 1 {
  const value = Number(text ?? 0);
  return value > 0 ? 1 : value < 0 ? -1 : 0;
}

/** The change from `open` to `close` in percent, as text. */
export function change(open: string, close: string): string {
  return fixed((Number(close) / Number(open) - 1) * 100);
}

// Without zeros that say nothing: before the whole part, after the fraction.
function plain(text: string): string[] {
  const [whole = "", fraction = ""] = text.split(".");
  return [whole.replace(/^0+/, ""), fraction.replace(/0+$/, "")];
}

// The price as text with exactly so many decimals. Numbers from 1e21 on have no `toFixed`.
function rounded(drawn: number, decimals: number, places: number): string {
  const digits = Math.min(MOST_DECIMALS, Math.max(0, decimals - places));
  const text = moved(Math.abs(drawn) < 1e21 ? drawn.toFixed(digits) : fixed(drawn), -places);
  const fraction = text.split(".")[1] ?? "";
  if (decimals <= fraction.length) return text;
  return `${text}${fraction ? "" : "."}${"0".repeat(decimals - fraction.length)}`;
}

// Cut, not rounded: an abbreviation must not show more than there is.
function short(text: string, decimals: number): string {
  const [whole = "", fraction = ""] = text.split(".");
  const kept = fraction.slice(0, decimals).replace(/0+$/, "");
  return kept ? `${whole}.${kept}` : whole;
}

function subscript(count: number): string {
  return [...String(count)].map((digit) => SUBSCRIPTS[Number(digit)]).join("");
}
