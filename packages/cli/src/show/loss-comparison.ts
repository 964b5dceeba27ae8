import { cureKey, lossSpans, rankCures } from "@segue/core";
import type { LossResult } from "../evaluation/read-loss.js";
import { formatCount } from "./format.js";
import { lengthLabel } from "./heat-map.js";
import { renderTable, type Column } from "./table.js";

interface Row {
  readonly title: string;
  readonly values: readonly string[];
}

/** The loss within and beyond the training length and the verdict on state collapse, a column for each cure. */
export function lossComparison(results: readonly LossResult[]): string {
  const [first] = results;
  if (!first) return "";
  const { step, trainTokens } = first;
  const spans = results.map((result) => lossSpans(result, trainTokens));
  const titles = spans.reduce((longest, own) => (own.length > longest.length ? own : longest));
  const rows: Row[] = [
    ...titles.map(({ toToken }, index) => ({
      title: index === 0 ? "within training length" : `to ${lengthLabel(toToken)} (${toToken / trainTokens}x)`,
      values: spans.map((own) => lossText(own[index]?.loss)),
    })),
    { title: "largest / within", values: results.map(({ collapse }) => collapse?.worstRatio?.toFixed(2) ?? "-") },
    { title: "state collapse", values: results.map(verdictText) },
  ];
  const columns: Column<Row>[] = [
    { title: "LOSS", value: ({ title }) => title },
    ...results.map(({ cure }, index): Column<Row> => ({
      title: cureKey(cure),
      value: ({ values }) => values[index] ?? "",
      right: true,
    })),
  ];
  const title = `loss by position of step ${formatCount(step)} ${of(first)} (training length ${formatCount(trainTokens)} tokens)`;
  return [title, renderTable(columns, rows)].join("\n");
}

/** Cures in order of their mean loss, the best one marked. */
export function lossRanking(results: readonly LossResult[]): string {
  const [first] = results;
  if (!first) return "";
  const ranked = rankCures(results).map((entry, index) => ({ ...entry, isBest: index === 0 && entry.meanLoss !== null }));
  const columns: Column<(typeof ranked)[0]>[] = [
    { title: "", value: ({ isBest }) => (isBest ? "*" : "") },
    { title: "CURE", value: ({ cure }) => cureKey(cure) },
    { title: "MEAN LOSS", value: ({ meanLoss }) => lossText(meanLoss), right: true },
    { title: "WITHIN TRAINING LENGTH", value: ({ trainLoss }) => lossText(trainLoss), right: true },
    { title: "STATE COLLAPSE", value: ({ curve }) => verdictText(curve), right: true },
  ];
  const title = `mean loss of step ${formatCount(first.step)} over ${formatCount(first.tokens)} tokens ${of(first)}, the best first (*)`;
  return [title, renderTable(columns, ranked)].join("\n");
}

export function verdictText({ collapse }: LossResult): string {
  if (!collapse) return "not judged";
  if (collapse.firstPosition !== null) return `from ${formatCount(collapse.firstPosition)}`;
  return collapse.worstPosition === null ? "not judged" : "no";
}

function of({ prompt, prompts }: LossResult): string {
  return prompts === 1 ? `on ${prompt}` : `on ${formatCount(prompts)} prompts of kind ${prompt}`;
}

function lossText(loss: number | null | undefined): string {
  return loss?.toFixed(3) ?? "none";
}
