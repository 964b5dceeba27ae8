/** Rows of one shape: what a figure was drawn from, or a table of a report. Null: no finite number. */
export interface DataTable {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Value[])[];
}

export type Value = string | number | null;

/** RFC 4180 with line feeds, a header first. Numbers are written so that they read back as the same; null is an empty field. */
export function tableCsv({ columns, rows }: DataTable): string {
  return [columns, ...rows].map((row) => `${row.map(csvField).join(",")}\n`).join("");
}

function csvField(value: Value): string {
  if (value === null) return "";
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Numbers that are not finite become null, so that CSV and JSON say the same. */
export function finite(value: number | null | undefined): number | null {
  return value !== null && value !== undefined && Number.isFinite(value) ? value : null;
}
