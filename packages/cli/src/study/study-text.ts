import { formatCount, formatShort } from "../show/format.js";
import { renderTable } from "../show/table.js";
import type { Analysis } from "./analyses.js";
import type { JobResult } from "./results.js";

/** What a study found, for people. */
export function studyText(jobs: readonly JobResult[], analyses: readonly Analysis[]): string {
  return [jobTable(jobs), ...analyses.map((analysis) => `${analysis.name} (${analysis.kind})\n${analysisText(analysis)}`)].join(
    "\n\n",
  );
}

function jobTable(jobs: readonly JobResult[]): string {
  return renderTable<JobResult>(
    [
      { title: "JOB", value: ({ name }) => name },
      { title: "PHASE", value: ({ phase, reason }) => (reason === "" ? phase : `${phase}: ${reason}`) },
      { title: "STATE", value: ({ stateFloats }) => formatShort(stateFloats), right: true },
      { title: "TRAINED AT", value: ({ trainTokens }) => formatCount(trainTokens), right: true },
      { title: "TOKENS", value: ({ tokens }) => formatShort(tokens), right: true },
      { title: "LOSS", value: ({ loss }) => loss.toFixed(4), right: true },
      { title: "SECONDS", value: ({ seconds }) => seconds.toFixed(0), right: true },
    ],
    jobs,
  );
}

/** One analysis as a table, and its fit. */
export function analysisText(analysis: Analysis): string {
  switch (analysis.kind) {
    case "collapse":
      return renderTable<(typeof analysis.rows)[number]>(
        [
          { title: "JOB", value: ({ job }) => job },
          { title: "STATE", value: ({ stateFloats }) => formatShort(stateFloats), right: true },
          { title: "TRAINED AT", value: ({ trainTokens }) => formatCount(trainTokens), right: true },
          ...lossColumns,
          { title: "PASSKEYS", value: ({ accuracy }) => accuracies(accuracy) },
        ],
        analysis.rows,
      );
    case "forget":
      return [
        renderTable<(typeof analysis.sizes)[number]>(
          [
            { title: "STATE", value: ({ stateFloats }) => formatShort(stateFloats), right: true },
            { title: "T_FORGET", value: (size) => bounded(size.thresholdTokens, size.isUpperBound ? "<=" : ""), right: true },
            {
              title: "WORST RATIO BY TRAINING LENGTH",
              value: ({ ladder }) => ladder.map((one) => `${one.trainTokens}: ${number(one.worstRatio)}`).join("  "),
            },
          ],
          analysis.sizes,
        ),
        analysis.fit === null
          ? "no line: fewer than two state sizes have a threshold"
          : `T_forget = ${number(analysis.fit.slope)} N_S + ${number(analysis.fit.intercept)} (K tokens, millions), R^2 ${number(analysis.fit.rSquared)}`,
      ].join("\n");
    case "recall":
      return [
        renderTable<(typeof analysis.sizes)[number]>(
          [
            { title: "STATE", value: ({ stateFloats }) => formatShort(stateFloats), right: true },
            { title: "T_RECALL", value: (size) => bounded(size.recallTokens, size.isLowerBound ? ">=" : ""), right: true },
            { title: "BEST JOB", value: ({ job }) => job },
            { title: "PASSKEYS", value: ({ lengths }) => accuracies(lengths) },
          ],
          analysis.sizes,
        ),
        analysis.fit === null
          ? "no exponential: fewer than three state sizes"
          : `T_recall = ${number(analysis.fit.scale)} (${number(analysis.fit.base)}^N_S - 1) + ${number(analysis.fit.offset)} (K tokens, millions), R^2 ${number(analysis.fit.rSquared)}`,
      ].join("\n");
    case "cures":
      return renderTable<(typeof analysis.rows)[number]>(
        [
          { title: "JOB", value: ({ job }) => job },
          { title: "EVALUATION", value: ({ evaluation }) => evaluation },
          { title: "CURE", value: ({ cure }) => cure },
          ...lossColumns,
          { title: "PASSKEYS", value: ({ accuracy }) => accuracies(accuracy) },
        ],
        analysis.rows,
      );
    case "moreData":
      return renderTable<(typeof analysis.rows)[number]>(
        [
          { title: "JOB", value: ({ job }) => job },
          { title: "EVALUATION", value: ({ evaluation }) => evaluation },
          { title: "TOKENS", value: ({ tokens }) => formatShort(tokens), right: true },
          ...lossColumns,
          { title: "WITHIN", value: ({ accuracyWithin }) => percent(accuracyWithin), right: true },
          { title: "BEYOND", value: ({ accuracyBeyond }) => percent(accuracyBeyond), right: true },
        ],
        analysis.rows,
      );
    case "learningRate":
      return renderTable<(typeof analysis.rows)[number]>(
        [
          { title: "JOB", value: ({ job }) => job },
          { title: "LEARNING RATE", value: ({ learningRate }) => String(learningRate), right: true },
          { title: "PASSKEYS", value: ({ accuracy }) => percent(accuracy), right: true },
          { title: "LOSS", value: ({ loss }) => loss.toFixed(4), right: true },
        ],
        analysis.rows,
      );
  }
}

interface Verdict {
  readonly trainLoss: number | null;
  readonly lateLoss: number | null;
  readonly worstRatio: number | null;
  readonly collapsed: boolean | null;
}

const lossColumns = [
  { title: "LOSS WITHIN", value: ({ trainLoss }: Verdict) => number(trainLoss), right: true },
  { title: "LATE", value: ({ lateLoss }: Verdict) => number(lateLoss), right: true },
  { title: "RATIO", value: ({ worstRatio }: Verdict) => number(worstRatio), right: true },
  { title: "COLLAPSED", value: ({ collapsed }: Verdict) => (collapsed === null ? "" : collapsed ? "yes" : "no") },
];

function accuracies(lengths: readonly { readonly length: number; readonly accuracy: number }[]): string {
  return lengths.map(({ length, accuracy }) => `${length}: ${percent(accuracy)}`).join("  ");
}

function bounded(tokens: number | null, bound: string): string {
  return tokens === null ? "none" : `${bound}${formatCount(tokens)}`;
}

function percent(share: number | null): string {
  return share === null ? "" : `${(100 * share).toFixed(0)} %`;
}

function number(value: number | null): string {
  return value === null ? "" : Number(value.toPrecision(3)).toString();
}
