import type { Drawing } from "../chart/option.js";
import type { DataTable } from "../data-table.js";

/** How figures of one kind are drawn, and the data beside them. */
export interface FigureKind<F> {
  readonly drawing: (figure: F) => Drawing;
  readonly table: (figure: F) => DataTable;
}
