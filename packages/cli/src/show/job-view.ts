import { SegueError } from "@segue/core";
import { JobPhase, type Checkpoint, type Job, type JobMember, type StepTimes } from "@segue/protocol";
import { jobSpecInputFromProto } from "@segue/runtime";

export type PhaseName = Exclude<keyof typeof JobPhase, "UNSPECIFIED"> | "UNSPECIFIED";

/** A job's fields as JSON can carry them: what `--json` prints. */
export interface JobView extends Omit<
  Job,
  | "$typeName"
  | "$unknown"
  | "phase"
  | "tokens"
  | "totalTokens"
  | "parameters"
  | "documentsRead"
  | "documentsDroppedShort"
  | "submittedAtMs"
  | "updatedAtMs"
  | "spec"
  | "members"
> {
  readonly phase: PhaseName;
  readonly tokens: number;
  readonly totalTokens: number;
  readonly parameters: number;
  readonly documentsRead: number;
  readonly documentsDroppedShort: number;
  readonly submittedAtMs: number;
  readonly updatedAtMs: number;
  /** The present membership, in order of shards. */
  readonly members: readonly MemberView[];
  /** The effective spec, with the names of the YAML file. */
  readonly spec?: unknown;
}

export interface MemberView extends Omit<JobMember, "$typeName" | "$unknown" | "stepTimes"> {
  /** Where the time of a step goes; absent before the first round. */
  readonly stepTimes?: StepTimesView | undefined;
}

export type StepTimesView = Omit<StepTimes, "$typeName" | "$unknown">;

export interface CheckpointView extends Omit<Checkpoint, "$typeName" | "$unknown" | "createdAtMs" | "sizeBytes" | "tokens"> {
  readonly createdAtMs: number;
  readonly sizeBytes: number;
  readonly tokens: number;
}

/** Phases that a job never leaves. */
export function isFinal(phase: PhaseName): boolean {
  return phase === "SUCCEEDED" || phase === "CANCELLED" || phase === "FAILED";
}

export function jobView(job: Job): JobView {
  const { spec, members, ...fields } = plainFields(job);
  return {
    ...fields,
    phase: JobPhase[job.phase] as PhaseName,
    tokens: Number(job.tokens),
    totalTokens: Number(job.totalTokens),
    parameters: Number(job.parameters),
    documentsRead: Number(job.documentsRead),
    documentsDroppedShort: Number(job.documentsDroppedShort),
    submittedAtMs: Number(job.submittedAtMs),
    updatedAtMs: Number(job.updatedAtMs),
    members: members.map(({ stepTimes, ...member }) => ({ ...plainFields(member), ...stepTimesView(stepTimes) })),
    ...(spec ? { spec: jobSpecInputFromProto(spec) } : {}),
  };
}

/** The view of an answer's job. @throws SegueError INTERNAL when there is none */
export function requireJob(job: Job | undefined): JobView {
  if (!job) throw new SegueError("INTERNAL", "The coordinator answered without a job.", { status: "INTERNAL" });
  return jobView(job);
}

export function checkpointView(checkpoint: Checkpoint): CheckpointView {
  return {
    ...plainFields(checkpoint),
    createdAtMs: Number(checkpoint.createdAtMs),
    sizeBytes: Number(checkpoint.sizeBytes),
    tokens: Number(checkpoint.tokens),
  };
}

/** As a field that is absent where nothing is known. */
export function stepTimesView(stepTimes: StepTimes | undefined): { stepTimes?: StepTimesView } {
  return stepTimes ? { stepTimes: plainFields(stepTimes) } : {};
}

/** A message's fields without protobuf-es' own marks. */
function plainFields<T extends object>(message: T): Omit<T, "$typeName" | "$unknown"> {
  return Object.fromEntries(Object.entries(message).filter(([name]) => !name.startsWith("$"))) as Omit<T, "$typeName" | "$unknown">;
}
