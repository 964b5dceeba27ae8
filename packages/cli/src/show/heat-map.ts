import { formatShort } from "./format.js";

export interface HeatMap {
  /** Context lengths in tokens, one column each. */
  readonly lengths: readonly number[];
  /** Depths of the key as shares of the context, one row each. */
  readonly depths: readonly number[];
  /** Share of right answers in a cell, undefined while it is not known. */
  readonly accuracy: (length: number, depth: number) => number | undefined;
}

const CELL_WIDTH = 8;
const MARGIN = 8;
/** 256-colour backgrounds from none right to all right. */
const COLOURS = [52, 88, 124, 166, 178, 142, 106, 70, 34, 28] as const;

/**
 * Accuracy by length (columns) and depth (rows) in percent. The numbers are always there; colours are an aid for terminals.
 */
export function renderHeatMap({ lengths, depths, accuracy }: HeatMap, options: { readonly colour: boolean }): string {
  const header = "depth".padStart(MARGIN - 2) + "  " + lengths.map((length) => lengthLabel(length).padStart(CELL_WIDTH)).join("");
  const rows = depths.map((depth) => {
    const label = `${Number((100 * depth).toFixed(1))} %`.padStart(MARGIN - 2);
    return `${label}  ${lengths.map((length) => cell(accuracy(length, depth), options.colour)).join("")}`;
  });
  return [header, ...rows].join("\n");
}

/** Mean over the known cells; undefined when none is known. */
export function meanAccuracy({ lengths, depths, accuracy }: HeatMap): number | undefined {
  const known = lengths.flatMap((length) => depths.map((depth) => accuracy(length, depth))).filter((share) => share !== undefined);
  return known.length === 0 ? undefined : known.reduce((sum, share) => sum + share, 0) / known.length;
}

function cell(share: number | undefined, colour: boolean): string {
  const text = share === undefined ? "-" : `${Math.round(100 * share)} %`;
  const padded = text.padStart(CELL_WIDTH - 1) + " ";
  if (!colour || share === undefined) return padded;
  const index = Math.min(COLOURS.length - 1, Math.floor(share * COLOURS.length));
  return `\x1b[48;5;${COLOURS[index]};97m${padded}\x1b[0m`;
}

function lengthLabel(tokens: number): string {
  return `${tokens % 1024 === 0 ? `${tokens / 1024}Ki` : tokens < 10_000 ? tokens : formatShort(tokens)} `;
}
