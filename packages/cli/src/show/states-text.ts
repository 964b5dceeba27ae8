import { cureKey, type HeadGrowth, type HeadShare, type StateSummary } from "@segue/core";
import type { StatesRecord } from "@segue/runtime";
import { cureText, formatCount } from "./format.js";
import { renderTable, type Column } from "./table.js";

const SHOWN_HEADS = 8;

type Result = Pick<StatesRecord, "step" | "tokens" | "prompt" | "trainTokens" | "cure" | "summary">;

/** What a trace of states comes to: the heads that grow, that remember the first token, and that have outliers. */
export function statesSummaryText(result: Result): string {
  const { step, tokens, prompt, trainTokens, cure, summary } = result;
  const title = `state statistics of step ${formatCount(step)} on ${formatCount(tokens)} tokens of ${prompt}${cureText(cure)} (training length ${formatCount(trainTokens)} tokens)`;
  if (!summary) return `${title}: none yet`;
  return [title, ...tables(summary)].join("\n");
}

function tables({ growth, retention, outliers }: StateSummary): string[] {
  const text: string[] = [];
  const add = <T>(name: string, columns: readonly Column<T>[], rows: readonly T[]): void => {
    if (rows.length > 0) text.push("", name, renderTable(columns, rows.slice(0, SHOWN_HEADS)));
  };
  const head = { title: "LAYER.HEAD", value: (of: HeadShare | HeadGrowth) => `${of.layer}.${of.head}`, right: true };
  const share = (title: string): Column<HeadShare>[] => [head, { title, value: (of) => (of.share ?? NaN).toFixed(4), right: true }];
  // JSON has no Infinity: a ratio that is none was beyond all bounds.
  const growing: Column<HeadGrowth>[] = [
    head,
    { title: "WITHIN", value: ({ within }) => (within ?? Infinity).toExponential(2), right: true },
    { title: "BEYOND", value: ({ beyond }) => (beyond ?? Infinity).toExponential(2), right: true },
    { title: "RATIO", value: ({ ratio }) => (ratio ?? Infinity).toFixed(2), right: true },
  ];
  add("largest variances within and beyond the training length, the fastest growing heads", growing, growth);
  add("share of the first token left at the training length", share("RETENTION"), retention);
  add("share of the state's energy in the largest 1 % of its channels, at the end", share("SHARE"), outliers);
  return text;
}

/** The heads that stand out most, a row for each cure. */
export function statesComparison(results: readonly Result[]): string {
  const [first] = results;
  if (!first) return "";
  const columns: Column<Result>[] = [
    { title: "CURE", value: ({ cure }) => cureKey(cure) },
    {
      title: "LARGEST GROWTH OF A VARIANCE",
      value: ({ summary }) => (summary?.growth[0] ? (summary.growth[0].ratio ?? Infinity).toFixed(2) : "-"),
      right: true,
    },
    { title: "LARGEST RETENTION", value: ({ summary }) => summary?.retention[0]?.share?.toFixed(4) ?? "-", right: true },
    { title: "LARGEST SHARE OF OUTLIERS", value: ({ summary }) => summary?.outliers[0]?.share?.toFixed(4) ?? "-", right: true },
  ];
  const title = `state statistics of step ${formatCount(first.step)} on ${formatCount(first.tokens)} tokens of ${first.prompt}`;
  return [title, renderTable(columns, results)].join("\n");
}
