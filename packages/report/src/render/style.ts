import { THEMED_COLOURS } from "../chart/palette.js";

const variables = (shade: "light" | "dark"): string =>
  THEMED_COLOURS.map((colour) => `${colour.variable}: ${colour[shade]};`).join(" ");

/** Of the whole page. Paper is printed as by day, whatever the screen shows. */
export const PAGE_STYLE = `
:root { color-scheme: light; --raised: #f5f6f8; --warn: #8a4b00; --warn-paper: #fff4e0; ${variables("light")} }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --raised: #1d2127; --warn: #ffc66d; --warn-paper: #33270f; ${variables("dark")} }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--chart-paper); color: var(--chart-text); font: 16px/1.55 "DejaVu Sans", Verdana, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.75rem; padding-top: 0.75rem; border-top: 1px solid var(--chart-grid); }
p { margin: 0.75rem 0; max-width: 46rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; padding: 0; margin: 1.25rem 0 0; list-style: none; }
a { color: var(--chart-series-0); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1.5rem; margin: 0; padding: 1rem 1.25rem; background: var(--raised); border-radius: 8px; }
dt { color: var(--chart-muted); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1.5rem 0 2rem; }
figure svg { display: block; width: 100%; height: auto; border: 1px solid var(--chart-grid); border-radius: 8px; }
figcaption { margin: 0.6rem 0 0.3rem; font-size: 0.92rem; color: var(--chart-muted); max-width: 46rem; }
.warning { padding: 0.7rem 1rem; border-left: 4px solid var(--warn); background: var(--warn-paper); color: var(--warn); border-radius: 0 6px 6px 0; }
.scroll { overflow: auto; max-height: 26rem; }
table { border-collapse: collapse; font-size: 0.86rem; margin: 0.5rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: 0.92rem; color: var(--chart-muted); padding-bottom: 0.35rem; }
th, td { text-align: left; padding: 0.25rem 0.9rem 0.25rem 0; border-bottom: 1px solid var(--chart-grid); vertical-align: top; }
td.number, th.number { text-align: right; }
summary { cursor: pointer; font-size: 0.9rem; color: var(--chart-series-0); }
footer { margin-top: 3rem; font-size: 0.86rem; color: var(--chart-muted); }
@media print {
  main { max-width: none; padding: 0; }
  nav, details { display: none; }
  figure, .warning, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
`;
