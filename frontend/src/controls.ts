/** The chart's buttons: a logarithmic axis, remembered, and the way back to the latest bars. */

import type { Chart } from "./chart";
import { byId } from "./dom";
import { remember, remembered } from "./storage";

const KEY = "klines.logarithmic";

export function startControls(chart: Chart): void {
  const logarithmic = byId<HTMLButtonElement>("logarithmic");
  let on = remembered(KEY) === "true";
  const apply = (): void => {
    logarithmic.setAttribute("aria-pressed", String(on));
    chart.logarithmic(on);
  };
  logarithmic.addEventListener("click", () => {
    on = !on;
    remember(KEY, String(on));
    apply();
  });
  byId("latest").addEventListener("click", () => chart.latest());
  apply();
}
