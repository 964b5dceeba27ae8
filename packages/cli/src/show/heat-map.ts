import type { Interval } from "@segue/core";
import { formatShort } from "./format.js";

export interface HeatMap {
  /** Context lengths in tokens, one column each. */
  readonly lengths: readonly number[];
  /** Depths of the key as shares of the context, one row each. */
  readonly depths: readonly number[];
  /** Share of right answers in a cell, undefined while it is not known. */
  readonly accuracy: (length: number, depth: number) => number | undefined;
  /** Within which the true accuracies of the cells lie; shown after the accuracy where given. */
  readonly interval?: (length: number, depth: number) => Interval | undefined;
}

const CELL_WIDTH = 8;
const INTERVAL_WIDTH = 7;
const MARGIN = 8;
/** 256-colour backgrounds from none right to all right. */
const COLOURS = [52, 88, 124, 166, 178, 142, 106, 70, 34, 28] as const;

/**
 * Accuracy by length (columns) and depth (rows) in percent. The numbers are always there; colours are an aid for terminals.
 */
export function renderHeatMap(map: HeatMap, options: { readonly colour: boolean }): string {
  const { lengths, depths, accuracy, interval } = map;
  const width = CELL_WIDTH + (interval ? INTERVAL_WIDTH : 0);
  const header = "depth".padStart(MARGIN - 2) + "  " + lengths.map((length) => `${lengthLabel(length)} `.padStart(width)).join("");
  const rows = depths.map((depth) => {
    const label = `${Number((100 * depth).toFixed(1))} %`.padStart(MARGIN - 2);
    const cells = lengths.map((length) => {
      const bounds = interval && intervalText(interval(length, depth)).padStart(INTERVAL_WIDTH);
      return cell(accuracy(length, depth), bounds ?? "", options.colour);
    });
    return `${label}  ${cells.join("")}`;
  });
  return [header, ...rows].join("\n");
}

/** Mean over the known cells; undefined when none is known. */
export function meanAccuracy({ lengths, depths, accuracy }: HeatMap): number | undefined {
  const known = lengths.flatMap((length) => depths.map((depth) => accuracy(length, depth))).filter((share) => share !== undefined);
  return known.length === 0 ? undefined : known.reduce((sum, share) => sum + share, 0) / known.length;
}

/** The bounds in percent: "70-97". */
export function intervalText(interval: Interval | undefined): string {
  return interval === undefined ? "" : `${Math.round(100 * interval.low)}-${Math.round(100 * interval.high)}`;
}

function cell(share: number | undefined, bounds: string, colour: boolean): string {
  const text = share === undefined ? "-" : `${Math.round(100 * share)} %`;
  const padded = `${text.padStart(CELL_WIDTH - 1)}${bounds} `;
  if (!colour || share === undefined) return padded;
  const index = Math.min(COLOURS.length - 1, Math.floor(share * COLOURS.length));
  return `\x1b[48;5;${COLOURS[index]};97m${padded}\x1b[0m`;
}

export function lengthLabel(tokens: number): string {
  return tokens % 1024 === 0 ? `${tokens / 1024}Ki` : tokens < 10_000 ? String(tokens) : formatShort(tokens);
}
