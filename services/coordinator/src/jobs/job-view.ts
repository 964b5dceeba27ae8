import { parameterLayout, tokensBefore } from "@segue/core";
import { JobPhase, type JobSchema } from "@segue/protocol";
import { jobSpecToProto } from "@segue/runtime";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { JobRecord } from "./job-record.js";
import type { LiveStatus } from "./live-status.js";

/** A job as it is at one moment. */
export interface JobView {
  readonly record: JobRecord;
  readonly live: LiveStatus;
}

/** Steps that a job has: `train.steps`, or those that its documents last for. */
export function totalSteps({ spec, dataSteps = Infinity }: JobRecord): number {
  return Math.min(spec.train.steps, dataSteps);
}

/** Seconds left at the present speed; 0 when unknown or over. */
export function etaSeconds({ record, live }: JobView): number {
  if (record.phase !== "RUNNING" || live.tokensPerSecond <= 0) return 0;
  const left = tokensBefore(record.spec, totalSteps(record)) - tokensBefore(record.spec, live.step);
  return left / live.tokensPerSecond;
}

/** Why the job is in its phase; of one that trains, why it does so with fewer workers than it could. */
export function reasonOf({ record, live }: JobView): string {
  return record.reason || (record.phase === "RUNNING" ? live.leftAside : "");
}

export function jobToProto(view: JobView): MessageInitShape<typeof JobSchema> {
  const { record, live } = view;
  const { spec } = record;
  return {
    jobId: record.jobId,
    name: spec.name,
    phase: JobPhase[record.phase],
    reason: reasonOf(view),
    step: live.step,
    totalSteps: totalSteps(record),
    tokens: BigInt(tokensBefore(spec, live.step)),
    totalTokens: BigInt(tokensBefore(spec, totalSteps(record))),
    loss: live.loss,
    tokensPerSecond: live.tokensPerSecond,
    learningRate: live.learningRate,
    gradientNorm: live.gradientNorm,
    workers: live.workers,
    members: live.members.map((member) => ({ ...member })),
    parameters: BigInt(parameterLayout(spec.model).size),
    attempt: record.attempt,
    documentsRead: BigInt(live.documentsRead),
    documentsDroppedShort: BigInt(live.documentsDroppedShort),
    submittedAtMs: BigInt(record.submittedAtMs),
    updatedAtMs: BigInt(record.updatedAtMs),
    etaSeconds: etaSeconds(view),
    engine: live.engine,
    transport: live.transport,
    checkpointStep: live.checkpointStep,
    checkpointDigest: live.checkpointDigest,
    notDurable: [live.notDurable, live.notCopied].filter((text) => text !== "").join("; "),
    evaluationsNotQueued: live.evaluationsNotQueued,
    checkpointWarning: live.checkpointWarning,
    leftOut: live.leftOut,
    spec: jobSpecToProto(spec),
  };
}
