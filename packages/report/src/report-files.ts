import { SegueError } from "@segue/core";
import type { Figure } from "./figure.js";
import { figureCsv } from "./kinds.js";
import { renderHtml } from "./render/html.js";
import { renderPng } from "./render/png.js";
import { renderSvg } from "./render/svg.js";
import { figuresOf, type Report } from "./report.js";

/** A file of a report: where it goes below the report's folder, and what is in it. */
export interface ReportFile {
  readonly path: string;
  readonly content: string | Uint8Array;
}

/**
 * Everything that a report is written as, one file at a time: `figures/<id>.{svg,png,csv,json}` of each figure, `report.json` with the whole
 * document, and `report.html`, last.
 * @throws SegueError REPORT_INVALID when figures' ids cannot name files
 */
export async function* reportFiles(report: Report): AsyncGenerator<ReportFile> {
  const figures = figuresOf(report);
  checkIds(figures);
  for (const figure of figures) {
    const svg = await renderSvg(figure);
    const path = `figures/${figure.id}`;
    yield { path: `${path}.svg`, content: svg };
    yield { path: `${path}.png`, content: await renderPng(svg) };
    yield { path: `${path}.csv`, content: figureCsv(figure) };
    yield { path: `${path}.json`, content: `${JSON.stringify(figure, null, 1)}\n` };
  }
  yield { path: "report.json", content: `${JSON.stringify(report, null, 1)}\n` };
  yield { path: "report.html", content: await renderHtml(report) };
}

function checkIds(figures: readonly Figure[]): void {
  const seen = new Set<string>();
  for (const { id } of figures) {
    if (!/^[a-z][a-z0-9-]{0,99}$/.test(id) || seen.has(id)) {
      throw new SegueError(
        "REPORT_INVALID",
        `"${id}" is no id for a figure: it takes one of its own in lower-case letters, digits and hyphens.`,
      );
    }
    seen.add(id);
  }
}
