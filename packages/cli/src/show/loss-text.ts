import type { LossResult } from "../evaluation/read-loss.js";
import { cureText, formatCount } from "./format.js";
import { renderTable, type Column } from "./table.js";

const MAX_ROWS = 24;
const BAR_WIDTH = 40;

interface Row {
  readonly fromToken: number;
  readonly loss: number | null;
}

/** The curve as bars, the training length marked, and the verdict in a sentence. */
export function lossText(result: LossResult): string {
  const { step, prompt, prompts, trainTokens, cure } = result;
  const rows = spans(result);
  const largest = Math.max(...rows.map(({ loss }) => loss ?? 0));
  const bar = (loss: number): string => "#".repeat(Math.round((loss / largest) * BAR_WIDTH));
  const columns: Column<Row>[] = [
    { title: "FROM", value: ({ fromToken }) => formatCount(fromToken), right: true },
    { title: "LOSS", value: ({ loss }) => loss?.toFixed(3) ?? "none", right: true },
    { title: "", value: ({ fromToken, loss }) => `${fromToken < trainTokens ? "|" : " "} ${loss === null ? "" : bar(loss)}` },
  ];
  const of = prompts === 1 ? prompt : `${formatCount(prompts)} prompts of kind ${prompt}`;
  return [
    `loss by position of step ${formatCount(step)} on ${of}${cureText(cure)} (|: within the training length, ${formatCount(trainTokens)} tokens)`,
    renderTable(columns, rows),
    verdict(result),
  ].join("\n");
}

/** Neighbouring buckets together, so that the table fits a screen: the largest loss of each span, which a mean would hide. */
function spans({ losses, bucketTokens }: LossResult): Row[] {
  const size = Math.ceil(losses.length / MAX_ROWS);
  return Array.from({ length: Math.ceil(losses.length / size) }, (_, span) => {
    const part = losses.slice(span * size, (span + 1) * size);
    return {
      fromToken: span * size * bucketTokens,
      loss: part.includes(null) ? null : Math.max(...part.map((loss) => loss ?? 0)),
    };
  });
}

function verdict({ collapse, collapseFactor }: LossResult): string {
  if (!collapse) return "not judged";
  const { collapsed, trainLoss, worstRatio, worstPosition, firstPosition } = collapse;
  const limit = `${collapseFactor} times the largest loss within the training length, ${trainLoss.toFixed(3)}`;
  if (collapsed) {
    return `state collapse from position ${formatCount(firstPosition ?? 0)} on: the loss exceeds ${limit}`;
  }
  if (worstRatio === null || worstPosition === null) return "nothing lies beyond the training length: no verdict on state collapse";
  return `no state collapse: the largest loss, at position ${formatCount(worstPosition)}, is ${worstRatio.toFixed(2)} times that within the training length (limit ${collapseFactor})`;
}
