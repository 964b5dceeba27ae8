import { cureKey } from "@segue/core";
import { figureBlock, figureId, type Report, type ReportBlock } from "@segue/report";
import type { Analysis } from "./analyses.js";
import { groupBy } from "./group-by.js";
import { lastCurves, lastPasskeys, type JobResult, type LossOutcome } from "./results.js";
import { analysisText } from "./study-text.js";
import type { Study } from "./study-spec.js";

/** What a study found, with figures of the kinds of the paper's. */
export function studyReport(study: Study, jobs: readonly JobResult[], analyses: readonly Analysis[]): Report {
  const done = jobs.filter(({ phase }) => phase === "SUCCEEDED");
  return {
    title: `Study ${study.name}`,
    facts: [
      { name: "about", value: study.description },
      { name: "jobs", value: `${done.length} of ${jobs.length} succeeded` },
      { name: "engines", value: [...new Set(done.map(({ engine }) => engine))].join("; ") },
    ],
    sections: [
      ...analyses.map((analysis) => ({
        title: `${analysis.name} (${analysis.kind})`,
        blocks: [...fitFigures(analysis), { kind: "text", text: analysisText(analysis) } as const],
      })),
      ...[...groupBy(done, ({ grid }) => grid)].map(([grid, found]) => ({
        title: `Jobs of ${grid}`,
        blocks: gridBlocks(grid, found),
      })),
    ],
  };
}

function fitFigures(analysis: Analysis): ReportBlock[] {
  const caption = "State size in millions of floats, lengths in units of 1,024 tokens.";
  if (analysis.kind === "forget") {
    const { points, fit } = analysis;
    return [
      figureBlock({
        kind: "forgetFit",
        id: figureId("forget", analysis.name),
        title: "T_forget against the state size",
        caption,
        points,
        fit,
      }),
    ];
  }
  if (analysis.kind !== "recall") return [];
  const { points, fit } = analysis;
  return [
    figureBlock({
      kind: "recallFit",
      id: figureId("recall", analysis.name),
      title: "T_recall against the state size",
      caption,
      points,
      fit,
    }),
  ];
}

/** The curves of all jobs of a grid in one figure for each evaluation, those of a job's cures in another, and its heat maps. */
function gridBlocks(grid: string, jobs: readonly JobResult[]): ReportBlock[] {
  const curves = jobs.flatMap((job) => lastCurves(job).map(({ result }) => ({ job: job.name, result })));
  const plain = [...groupBy(curves, ({ result }) => result.name)].map(([name, found]) =>
    lossFigure(
      `${grid}: ${name}`,
      found.map(({ job, result }) => ({ name: job, result })),
    ),
  );
  return [...plain, ...jobs.flatMap((job) => [...cureFigures(job), ...heatMaps(job)])];
}

function cureFigures(job: JobResult): ReportBlock[] {
  const last = job.evaluations.filter((one): one is LossOutcome => one.kind === "lossByPosition" && one.result.step === job.step);
  return [...groupBy(last, ({ result }) => result.name)]
    .filter(([, found]) => found.length > 1)
    .map(([name, found]) =>
      lossFigure(
        `${job.name}: ${name} with cures`,
        found.map(({ result }) => ({ name: cureKey(result.cure), result })),
      ),
    );
}

function lossFigure(
  title: string,
  curves: readonly { readonly name: string; readonly result: LossOutcome["result"] }[],
): ReportBlock {
  const caption = "Mean cross-entropy in nats of the tokens of each bucket.";
  const lines = curves.map(({ name, result: { bucketTokens, losses } }) => ({ name, bucketTokens, losses }));
  return figureBlock({
    kind: "lossByPosition",
    id: figureId("loss", title),
    title: `Loss by position, ${title}`,
    caption,
    curves: lines,
  });
}

function heatMaps(job: JobResult): ReportBlock[] {
  return lastPasskeys(job).map(({ result: { name, lengths, depths, cells } }) =>
    figureBlock({
      kind: "passkeyMap",
      id: figureId("passkey", job.name, name),
      title: `Passkeys repeated (%), ${job.name}: ${name}`,
      caption: "The share of passkeys that the model repeats, by the length of the context and the place of the key in it.",
      ...{ lengths, depths, cells },
    }),
  );
}
