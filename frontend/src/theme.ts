/** Light or dark: the system's choice until the switch is used, then what was chosen, also the next time. */

import { remember, remembered } from "./storage";

type Theme = "light" | "dark";

const KEY = "klines.theme";

/** Apply the theme and let `button` switch it; `onChange` is called after each change. */
export function startTheme(button: HTMLButtonElement, onChange: () => void): void {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const found = remembered(KEY);
  let chosen: Theme | undefined = found === "light" || found === "dark" ? found : undefined;
  const apply = (): void => {
    const theme = chosen ?? (system.matches ? "dark" : "light");
    const other = theme === "dark" ? "light" : "dark";
    document.documentElement.dataset["theme"] = theme;
    button.setAttribute("aria-label", `Switch to ${other} colours`);
    button.title = `Switch to ${other} colours`;
    onChange();
  };
  system.addEventListener("change", apply);
  button.addEventListener("click", () => {
    chosen = document.documentElement.dataset["theme"] === "dark" ? "light" : "dark";
    remember(KEY, chosen);
    apply();
  });
  apply();
}
