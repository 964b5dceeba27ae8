import type { DataTable } from "./data-table.js";
import type { Figure } from "./figure.js";

/** A document about a checkpoint, a model or a study: plain data, drawn by `reportFiles`. */
export interface Report {
  readonly title: string;
  /** What it is about in a few words a line, in the order shown. */
  readonly facts: readonly { readonly name: string; readonly value: string }[];
  readonly sections: readonly ReportSection[];
}

export interface ReportSection {
  readonly title: string;
  readonly blocks: readonly ReportBlock[];
}

export type ReportBlock =
  | { readonly kind: "text"; readonly text: string }
  /** A text that must not be overlooked. */
  | { readonly kind: "warning"; readonly text: string }
  | { readonly kind: "table"; readonly caption: string; readonly table: DataTable }
  | { readonly kind: "figure"; readonly figure: Figure };

export function figureBlock(figure: Figure): ReportBlock {
  return { kind: "figure", figure };
}

/** All figures of a report, in its order. */
export function figuresOf({ sections }: Report): Figure[] {
  return sections.flatMap(({ blocks }) => blocks.flatMap((block) => (block.kind === "figure" ? [block.figure] : [])));
}
