import { modelCapacity, SegueError, trainingLength, validateJobSpec, type JobSpec, type ModelSpec } from "@segue/core";
import { formatTokens, withDistinctIds, type Report, type ReportBlock, type ReportSection } from "@segue/report";
import { numberOrNull, parsedJson } from "@segue/runtime";
import { namedModels } from "../named-models.js";
import { formatCount, formatShort } from "../show/format.js";
import { evaluatedSteps, type JobFindings } from "./findings.js";
import { lossSection } from "./loss-section.js";
import { passkeySection } from "./passkey-section.js";
import { remembranceSection, statesSection, type NamedTrace } from "./states-section.js";

/** The newest evaluated checkpoint, or the newest of all; the one asked for if there is one. @throws SegueError CHECKPOINT_NOT_FOUND */
export function reportedStep(findings: JobFindings, asked: number | undefined): number {
  const steps = evaluatedSteps(findings);
  const known = [...new Set([...steps, ...findings.checkpoints.map(({ step }) => step)])].sort((a, b) => a - b);
  const step = asked ?? steps.at(-1) ?? known.at(-1);
  if (step !== undefined && known.includes(step)) return step;
  const list = known.length === 0 ? "it has none yet" : `it has ${known.map(formatCount).join(", ")}`;
  throw new SegueError(
    "CHECKPOINT_NOT_FOUND",
    `${findings.jobId} has no checkpoint${asked === undefined ? "" : ` at step ${asked}`}; ${list}.`,
    {
      status: "NOT_FOUND",
    },
  );
}

/** All that is known of a checkpoint: its training, evaluations with every cure side by side, and its states. */
export function checkpointReport(findings: JobFindings, step: number, traces: readonly NamedTrace[]): Report {
  const { jobId, fields, passkeys, losses, remembrances } = findings;
  const spec = specOf(fields["spec"]);
  const trainTokens = spec && trainingLength(spec.tbptt);
  return withDistinctIds({
    title: `${fields["name"] ?? jobId} at step ${formatCount(step)}`,
    facts: facts(findings, step, spec, trainTokens),
    sections: [
      ...trainingSection(findings, step),
      ...passkeySection(passkeys, step, trainTokens),
      ...lossSection(losses, step),
      ...statesSection(traces),
      ...remembranceSection(remembrances, step),
      ...(spec ? [capacitySection(spec.model)] : []),
    ],
  });
}

/** What is known of the states of a model in a folder. */
export function statesReport(trace: NamedTrace): Report {
  const value = trace.trainTokens === undefined ? "not given" : `${formatCount(trace.trainTokens)} tokens`;
  return {
    title: `States of ${trace.name}`,
    facts: [{ name: "training length", value }],
    sections: statesSection([{ ...trace, name: "" }]),
  };
}

function facts(
  { jobId, fields, checkpoints }: JobFindings,
  step: number,
  spec: JobSpec | undefined,
  trainTokens: number | undefined,
): { name: string; value: string }[] {
  const digest = checkpoints.find((checkpoint) => checkpoint.step === step)?.digest;
  const parameters = numberOrNull(fields["parameters"]);
  const { layers, dModel, headDim, dState } = spec?.model ?? {};
  const found: [string, string | undefined][] = [
    ["job", jobId],
    [
      "checkpoint",
      `step ${formatCount(step)}${fields["totalSteps"] === undefined ? "" : ` of ${formatCount(Number(fields["totalSteps"]))}`}`,
    ],
    ["digest", digest],
    ["model", spec && `${layers} layers, width ${dModel}, head width ${headDim}, state size ${dState}`],
    ["parameters", parameters === null ? undefined : formatCount(parameters)],
    ["state", spec && `${formatCount(modelCapacity(spec.model).stateFloats)} floats a lane`],
    ["training length", trainTokens === undefined ? undefined : `${formatCount(trainTokens)} tokens`],
    ["engine", fields["engine"]],
  ];
  return found.flatMap(([name, value]) => (value === undefined || value === "" ? [] : [{ name, value }]));
}

function trainingSection({ training }: JobFindings, step: number): ReportSection[] {
  if (training.length === 0) return [];
  const figure: ReportBlock = {
    kind: "figure",
    figure: {
      kind: "trainingCurve",
      id: "training-loss",
      title: "Training loss",
      caption: `The loss of ${formatCount(training.length)} recorded steps; what was rolled back is left out.`,
      curves: [{ name: "loss", points: training }],
      step,
    },
  };
  return [{ title: "Training", blocks: [figure] }];
}

function capacitySection(model: ModelSpec): ReportSection {
  const { parameters, stateFloats, forgetTokens, recallTokens, warnings } = modelCapacity(model);
  const length = (tokens: number | null): string => (tokens === null ? "no length" : `${formatTokens(tokens)} tokens`);
  const named = namedModels().map(({ name, model: of }) => {
    const capacity = modelCapacity(of);
    return { name: name.replace(/^mamba2-/, ""), parameters: capacity.parameters, stateFloats: capacity.stateFloats };
  });
  return {
    title: "Capacity",
    blocks: [
      {
        kind: "text",
        text:
          `By the laws that the paper fitted to its models, a state of ${formatShort(stateFloats)} floats forgets robustly when trained at ` +
          `${length(forgetTokens)} or more, and recalls passkeys up to ${length(recallTokens)}.`,
      },
      ...warnings.map((text): ReportBlock => ({ kind: "warning", text })),
      {
        kind: "figure",
        figure: {
          kind: "stateSizes",
          id: "state-sizes",
          title: "State size against model size",
          caption: "This model beside those that a job spec can name.",
          families: [
            { name: "Mamba-2", models: named },
            { name: "this model", models: [{ name: "this model", parameters, stateFloats }] },
          ],
        },
      },
    ],
  };
}

/** A spec of another version says nothing rather than something wrong. */
function specOf(json: string | undefined): JobSpec | undefined {
  try {
    return validateJobSpec(parsedJson(json)).spec;
  } catch {
    return undefined;
  }
}
