import { cureKey, meanLoss } from "@segue/core";
import { figureId, type ReportBlock, type ReportSection, type Value } from "@segue/report";
import type { LossRecord } from "@segue/runtime";
import { formatCount } from "../show/format.js";
import { byName } from "./findings.js";

/** Loss by position of a checkpoint, all cures in one figure, and the verdicts. @returns nothing when none is known */
export function lossSection(records: readonly LossRecord[], step: number): ReportSection[] {
  const known = records.filter((record) => record.step === step && record.losses.length > 0);
  const blocks = byName(known).flatMap(({ name, records: cured }) => nameBlocks(name, cured));
  return blocks.length === 0 ? [] : [{ title: "Loss by position", blocks }];
}

function nameBlocks(name: string, records: readonly LossRecord[]): ReportBlock[] {
  const [first] = records;
  if (!first) return [];
  const { prompt, prompts, tokens, trainTokens, collapseFactor, collapse } = first;
  const collapseLoss = collapse ? collapseFactor * collapse.trainLoss : undefined;
  return [
    {
      kind: "text",
      text:
        `${name}: ${formatCount(prompts)} ${prompts === 1 ? "prompt" : "prompts"} of kind ${prompt}, ${formatCount(tokens)} tokens each. The state has collapsed where ` +
        `the loss exceeds ${collapseFactor} times the largest within the training length of ${formatCount(trainTokens)} tokens.`,
    },
    {
      kind: "figure",
      figure: {
        kind: "lossByPosition",
        id: figureId("loss", name),
        title: `Loss by position: ${name}`,
        caption: records.map(verdict).join(" "),
        curves: records.map(({ cure, bucketTokens, losses }) => ({ name: cureKey(cure), bucketTokens, losses })),
        trainTokens,
        ...(collapseLoss !== undefined && { collapseLoss }),
      },
    },
    { kind: "table", caption: "Verdicts on state collapse", table: verdictTable(records) },
  ];
}

function verdict({ cure, collapse }: LossRecord): string {
  const subject = cure.kind === "none" ? "Without a cure" : `With ${cureKey(cure)}`;
  if (!collapse) return `${subject} nothing is judged yet.`;
  if (collapse.collapsed) return `${subject} the state collapses from position ${formatCount(collapse.firstPosition ?? 0)} on.`;
  if (collapse.worstRatio === null) return `${subject} nothing lies beyond the training length.`;
  return `${subject} there is no collapse: at worst ${collapse.worstRatio.toFixed(2)} times the loss within the training length.`;
}

function verdictTable(records: readonly LossRecord[]): { columns: string[]; rows: Value[][] } {
  const rows = records.map((record): Value[] => {
    const { cure, collapse } = record;
    const mean = meanLoss(record);
    if (!collapse) return [cureKey(cure), "not judged", null, null, null, mean];
    const { collapsed, trainLoss, worstRatio, firstPosition } = collapse;
    return [cureKey(cure), collapsed ? "yes" : "no", trainLoss, worstRatio, firstPosition, mean];
  });
  return {
    columns: ["cure", "collapsed", "largest loss in training length", "worst ratio beyond", "from position", "mean loss"],
    rows,
  };
}
