import type { Figure } from "../figure.js";
import { drawingOf } from "../kinds.js";

/**
 * A figure as an SVG document of its own, on white: the same bytes for the same figure. ECharts is loaded at the first one.
 * Text is in DejaVu Sans, or where that is missing in what the reader has.
 */
export async function renderSvg(figure: Figure): Promise<string> {
  const { drawSvg } = await import("./draw.js");
  return drawSvg(drawingOf(figure), figure.id);
}
