import { cureKey, recentAccuracy, wilsonInterval, type CureSpec } from "@segue/core";
import { figureBlock, figureId, type CheckpointAccuracyFigure, type ReportBlock, type ReportSection } from "@segue/report";
import type { EvaluationRecord } from "@segue/runtime";
import { cureText, formatCount } from "../show/format.js";
import { byName } from "./findings.js";

/**
 * Heat maps of a checkpoint, cures beside one another, keys near the end, and how accuracy came about from checkpoint to checkpoint.
 * @param records of all checkpoints
 * @returns nothing when no cell is known
 */
export function passkeySection(
  records: readonly EvaluationRecord[],
  step: number,
  trainTokens: number | undefined,
): ReportSection[] {
  const known = records.filter(({ cells }) => cells.length > 0);
  const blocks = byName(known.filter((record) => record.step === step)).flatMap(({ name, records: cured }) => {
    const history = known.filter((record) => record.name === name && record.cure.kind === "none").sort((a, b) => a.step - b.step);
    return [...nameBlocks(name, cured, trainTokens), ...historyBlocks(name, history, trainTokens)];
  });
  return blocks.length === 0 ? [] : [{ title: "Passkeys", blocks }];
}

function nameBlocks(name: string, records: readonly EvaluationRecord[], trainTokens: number | undefined): ReportBlock[] {
  const [first] = records;
  if (!first) return [];
  const carried = first.carryState ? "" : " The state is zeroed at every segment boundary.";
  const text = `${name}: keys of ${first.digits} digits in prompts of the template "${first.template}", up to ${formatCount(first.samples)} a cell.${carried}`;
  return [
    { kind: "text", text },
    ...records.flatMap((record) => mapBlocks(record)),
    ...(records.length > 1 ? [figureBlock(curesFigure(name, records, trainTokens))] : []),
    { kind: "table", caption: "Mean accuracy over all prompts, with its 95 % interval (Wilson)", table: summaryTable(records) },
  ];
}

function mapBlocks({ name, cure, lengths, depths, cells, status, reason }: EvaluationRecord): ReportBlock[] {
  const title = `Passkeys repeated (%)${cureText(cure)}: ${name}`;
  const missing = lengths.length * depths.length - cells.length;
  const blocks: ReportBlock[] = [];
  if (missing > 0) {
    const why = status === "failed" ? `the evaluation failed: ${reason}` : `the evaluation is ${status}`;
    blocks.push({ kind: "warning", text: `${missing} of ${lengths.length * depths.length} cells are not known; ${why}.` });
  }
  blocks.push(
    figureBlock({
      kind: "passkeyMap",
      id: figureId("passkey", name, ...cureName(cure)),
      title,
      caption: "The share of passkeys that the model repeats, by the length of the context and the place of the key in it.",
      ...{ lengths, depths, cells },
    }),
  );
  const entries = recentAccuracy(cells);
  if (entries.length > 0) {
    blocks.push(
      figureBlock({
        kind: "recentAccuracy",
        id: figureId("passkey-recent", name, ...cureName(cure)),
        title: `Accuracy on keys in the last r tokens${cureText(cure)}: ${name}`,
        caption:
          "Where it falls with the length of the context, what came before the key disturbs it: the state does not forget. With 95 % intervals.",
        entries,
      }),
    );
  }
  return blocks;
}

function curesFigure(
  name: string,
  records: readonly EvaluationRecord[],
  trainTokens: number | undefined,
): CheckpointAccuracyFigure {
  return {
    kind: "checkpointAccuracy",
    id: figureId("passkey-cures", name),
    title: `Passkey accuracy with and without cures: ${name}`,
    caption: "Over all depths, with 95 % intervals.",
    checkpoints: records.map((record) => ({ name: cureKey(record.cure), points: accuracyByLength(record) })),
    ...(trainTokens !== undefined && { trainTokens }),
  };
}

function historyBlocks(name: string, history: readonly EvaluationRecord[], trainTokens: number | undefined): ReportBlock[] {
  if (history.length < 2) return [];
  return [
    figureBlock({
      kind: "checkpointAccuracy",
      id: figureId("passkey-checkpoints", name),
      title: `Passkey accuracy of the job's checkpoints: ${name}`,
      caption:
        "Over all depths, with 95 % intervals. More training may mean less forgetting: better within the training length, worse beyond.",
      checkpoints: history.map((record) => ({ name: `step ${formatCount(record.step)}`, points: accuracyByLength(record) })),
      ...(trainTokens !== undefined && { trainTokens }),
    }),
  ];
}

function accuracyByLength({ cells }: EvaluationRecord): CheckpointAccuracyFigure["checkpoints"][number]["points"] {
  const lengths = [...new Set(cells.map(({ length }) => length))].sort((a, b) => a - b);
  return lengths.flatMap((length) => {
    const { correct, samples } = total(cells.filter((cell) => cell.length === length));
    return samples === 0 ? [] : [{ length, accuracy: correct / samples, interval: wilsonInterval(correct, samples) }];
  });
}

function summaryTable(records: readonly EvaluationRecord[]): { columns: string[]; rows: (string | number | null)[][] } {
  const rows = records.map(({ cure, cells, status }) => {
    const { correct, samples } = total(cells);
    const { low, high } = samples === 0 ? { low: null, high: null } : wilsonInterval(correct, samples);
    return [cureKey(cure), samples === 0 ? null : correct / samples, low, high, samples, status];
  });
  return { columns: ["cure", "accuracy", "low", "high", "prompts", "status"], rows };
}

function total(cells: EvaluationRecord["cells"]): { correct: number; samples: number } {
  return {
    correct: cells.reduce((sum, cell) => sum + cell.correct, 0),
    samples: cells.reduce((sum, cell) => sum + cell.samples, 0),
  };
}

function cureName(cure: CureSpec): string[] {
  return cure.kind === "none" ? [] : [cureKey(cure)];
}
