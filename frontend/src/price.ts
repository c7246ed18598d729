/**
 * Decimals as text: exact where the service sent text, readable however small. Pure.
 *
 * The service sends fixed-point text without superfluous zeros ("0.00000123"). A tiny number is shown with its zeros
 * counted, 0.0₅123 for 0.00000123: the field's way, and every digit is still there.
 */

const SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉";
const FOLDED_ZEROS = 4;
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

/** A number rounded to `decimals`, as a price axis shows it: `decimals` digits, zeros folded. */
export function axis(value: number, decimals: number): string {
  const text = value.toFixed(Math.min(100, Math.max(0, decimals)));
  return /[1-9]/.test(text) ? shown(text) : "0";
}

/** Four digits and a unit, for columns in which the order of magnitude matters: 1.234M; small ones as `shown`. */
export function compact(text: string): string {
  const power = magnitude(text);
  if (power < 3) return shown(short(text, Math.max(0, 3 - power)));
  const step = Math.min(UNITS.length - 1, Math.floor(power / 3));
  return short(moved(text, -3 * step), Math.max(0, 3 - (power - 3 * step))) + UNITS[step];
}

/** A change in percent with its sign and two decimals, from text; "–" where there is none. */
export function percent(text: string | null): string {
  if (text === null) return "–";
  const value = Number(text);
  const places = Math.abs(value) >= 1000 ? 0 : 2;
  return `${value > 0 ? "+" : ""}${value.toFixed(places).replace(/^-(0(?:\.0+)?)$/, "$1")}%`;
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

// Cut, not rounded: an abbreviation must not show more than there is.
function short(text: string, decimals: number): string {
  const [whole = "", fraction = ""] = text.split(".");
  const kept = fraction.slice(0, decimals).replace(/0+$/, "");
  return kept ? `${whole}.${kept}` : whole;
}

function subscript(count: number): string {
  return [...String(count)].map((digit) => SUBSCRIPTS[Number(digit)]).join("");
}
