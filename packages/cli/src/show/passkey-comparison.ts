import { cureKey } from "@segue/core";
import { heatMapOf, type EvaluationResult } from "../evaluation/read-evaluation.js";
import { formatCount } from "./format.js";
import { lengthLabel, meanAccuracy } from "./heat-map.js";
import { renderTable, type Column } from "./table.js";

/** The mean accuracy over all depths of each length, a column for each cure. */
export function passkeyComparison(results: readonly EvaluationResult[]): string {
  const [first] = results;
  if (!first) return "";
  const columns: Column<number>[] = [
    { title: "LENGTH", value: lengthLabel, right: true },
    ...results.map((result): Column<number> => ({
      title: cureKey(result.cure),
      value: (length) => shareText(meanAccuracy({ ...heatMapOf(result), lengths: [length] })),
      right: true,
    })),
  ];
  return [`passkey accuracy of step ${formatCount(first.step)}, mean over depths`, renderTable(columns, first.lengths)].join("\n");
}

function shareText(share: number | undefined): string {
  return share === undefined ? "-" : `${(100 * share).toFixed(1)} %`;
}
