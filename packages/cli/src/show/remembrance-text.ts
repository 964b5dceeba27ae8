import { cureKey } from "@segue/core";
import type { RemembranceRecord } from "@segue/runtime";
import { formatCount } from "./format.js";
import { renderTable, type Column } from "./table.js";

type Result = Pick<RemembranceRecord, "step" | "tokens" | "prompt" | "prompts" | "starts" | "cure" | "distances">;

/** How far predictions are from those with the whole context, a row for each number of tokens left out and a column for each cure. */
export function remembranceComparison(results: readonly Result[]): string {
  const [first] = results;
  if (!first) return "";
  const columns: Column<number>[] = [
    { title: "LEFT OUT", value: (index) => formatCount(first.starts[index] ?? 0), right: true },
    ...results.map(({ cure, distances }): Column<number> => ({
      title: cure.kind === "none" ? "DISTANCE" : cureKey(cure),
      value: (index) => distances[index]?.toFixed(4) ?? "none",
      right: true,
    })),
  ];
  const of = first.prompts === 1 ? "one prompt" : `${formatCount(first.prompts)} prompts`;
  return [
    `effective remembrance of step ${formatCount(first.step)}: total variation distance of the predictions after ${formatCount(first.tokens)} tokens of ${first.prompt} with and without the first ones, over ${of}`,
    renderTable(
      columns,
      first.starts.map((_, index) => index),
    ),
  ].join("\n");
}
