import { fittedSchedule, specInvalid, type JobSpec } from "@segue/core";
import { DataPlan_Basis, type DataPlanSchema } from "@segue/protocol";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { DataPlan } from "../feed/step-cutter.js";

/**
 * What people should know of a job whose documents end before its steps.
 * @throws SegueError SPEC_INVALID when there is no document to train on
 */
export function planWarnings(spec: JobSpec, plan: DataPlan | undefined): string[] {
  if (!plan) return [];
  const { data, train, schedule } = spec;
  const { basis, documents, documentsTooShort, steps } = plan;
  if (basis === "EXACT" && documents === 0) {
    const description = `leaves no document to train on: all ${documentsTooShort} are shorter than ${data.minDocumentTokens} tokens`;
    throw specInvalid([{ field: "data.minDocumentTokens", description }]);
  }
  if (basis === "UNKNOWN" && data.epochs > 0) {
    return [
      "There is too much text to count it now; it is counted when the job has started, and the schedule ends with the documents.",
    ];
  }
  if (steps >= train.steps) return [];
  const last = `The documents last for ${basis === "EXACT" ? "" : "about "}${steps} of ${train.steps} steps (data.epochs ${data.epochs})`;
  if (schedule.revision === 1) return [`${last}; schedule.revision 1 decays as if they lasted for all.`];
  const { warmupSteps, decaySteps } = fittedSchedule(schedule, steps);
  const isShortened = warmupSteps !== schedule.warmupSteps || decaySteps !== schedule.decaySteps;
  if (isShortened) return [`${last}; warm-up and decay are shortened to ${warmupSteps} and ${decaySteps} steps, so that they fit.`];
  if (decaySteps === 0) return [`${last}.`];
  return [`${last}; the learning rate decays over the last ${decaySteps} of these.`];
}

export function planToProto({
  basis,
  documents,
  documentsTooShort,
  tokens,
  steps,
}: DataPlan): MessageInitShape<typeof DataPlanSchema> {
  return {
    basis: DataPlan_Basis[basis],
    documents: BigInt(documents),
    documentsTooShort: BigInt(documentsTooShort),
    tokens: BigInt(tokens),
    steps,
  };
}
