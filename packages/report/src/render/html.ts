import { THEMED_COLOURS } from "../chart/palette.js";
import type { DataTable, Value } from "../data-table.js";
import type { Figure } from "../figure.js";
import { figureTable } from "../kinds.js";
import type { Report, ReportBlock, ReportSection } from "../report.js";
import { escapeHtml } from "./escape.js";
import { PAGE_STYLE } from "./style.js";
import { renderSvg } from "./svg.js";

/** A page is read, not computed with: the rest of a longer table is in its file. */
const SHOWN_ROWS = 200;
/** Nothing may be fetched and nothing may run, whatever a name in the data says. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/** A report as one HTML document that asks for nothing else: pictures inline, by day and by night, on paper without its tables of data. */
export async function renderHtml(report: Report): Promise<string> {
  const { title, facts, sections } = report;
  const parts: string[] = [];
  for (const [index, section] of sections.entries()) parts.push(await sectionHtml(section, index));
  const links = sections.map((section, index) => `<li><a href="#section-${index}">${escapeHtml(section.title)}</a></li>`);
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<title>${escapeHtml(title)}</title>
<style>${PAGE_STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
<dl>
${facts.map(({ name, value }) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`).join("\n")}
</dl>
${links.length > 1 ? `<nav aria-label="Sections"><ul>${links.join("")}</ul></nav>` : ""}
${parts.join("\n")}
<footer>Made by Segue. The folder of this file holds every figure as SVG and PNG, and its data as CSV and JSON.</footer>
</main>
</body>
</html>
`;
}

async function sectionHtml({ title, blocks }: ReportSection, index: number): Promise<string> {
  const parts: string[] = [];
  for (const block of blocks) parts.push(await blockHtml(block));
  return `<section aria-labelledby="section-${index}">
<h2 id="section-${index}">${escapeHtml(title)}</h2>
${parts.join("\n")}
</section>`;
}

async function blockHtml(block: ReportBlock): Promise<string> {
  switch (block.kind) {
    case "text":
      return `<p>${escapeHtml(block.text)}</p>`;
    case "warning":
      return `<p class="warning" role="note">${escapeHtml(block.text)}</p>`;
    case "table":
      return `${scrollable(tableHtml(block.table, block.caption), block.caption)}`;
    case "figure":
      return figureHtml(block.figure);
  }
}

async function figureHtml(figure: Figure): Promise<string> {
  const { title, caption } = figure;
  const table = figureTable(figure);
  const shown = { ...table, rows: table.rows.slice(0, SHOWN_ROWS) };
  const rest =
    table.rows.length > SHOWN_ROWS ? `The first ${SHOWN_ROWS} of ${table.rows.length} rows` : `${table.rows.length} rows`;
  return `<figure>
${inlineSvg(await renderSvg(figure), `${title}. ${caption}`)}
<figcaption>${escapeHtml(caption)}</figcaption>
<details><summary>Data: ${escapeHtml(title)}</summary>${scrollable(tableHtml(shown, rest), rest)}</details>
</figure>`;
}

/** Part of the page: named for those who do not see it, and in the page's colours in place of its own. */
function inlineSvg(svg: string, label: string): string {
  const start = svg.indexOf("<svg");
  const themed = THEMED_COLOURS.reduce(
    (text, { light, variable }) => text.replaceAll(new RegExp(`\\b(fill|stroke)="${light}"`, "gi"), `$1="var(${variable})"`),
    svg.slice(start),
  );
  return themed.replace("<svg", `<svg role="img" aria-label="${escapeHtml(label)}"`);
}

/** Reached with the keyboard, too. */
function scrollable(html: string, label: string): string {
  return `<div class="scroll" role="region" tabindex="0" aria-label="${escapeHtml(label)}">${html}</div>`;
}

function tableHtml({ columns, rows }: DataTable, caption: string): string {
  const isNumber = columns.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] !== "string"));
  const side = (column: number): string => (isNumber[column] ? ` class="number"` : "");
  const head = columns.map((name, column) => `<th scope="col"${side(column)}>${escapeHtml(name)}</th>`).join("");
  const body = rows.map((row) => `<tr>${row.map((value, column) => `<td${side(column)}>${cellText(value)}</td>`).join("")}</tr>`);
  return `<table><caption>${escapeHtml(caption)}</caption><thead><tr>${head}</tr></thead><tbody>
${body.join("\n")}
</tbody></table>`;
}

function cellText(value: Value): string {
  if (value === null) return "";
  if (typeof value === "string") return escapeHtml(value);
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5)));
}
