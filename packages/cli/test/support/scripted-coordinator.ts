import { createHash } from "node:crypto";
import {
  configToHuggingFace,
  cureSchema,
  encodeSafetensors,
  NO_CURE,
  parameterLayout,
  SegueError,
  parseJobSpec,
} from "@segue/core";
import {
  create,
  JobPhase,
  Jobs,
  JobSchema,
  TensorRegistry,
  Tensors,
  WorkerInfoSchema,
  WorkerState,
  tensorsHandlers,
  type Handlers,
  type Job,
  type SubmitEvaluationRequest,
  type WorkerInfo,
} from "@segue/protocol";
import { createLogger, evaluationId, jobSpecToProto, startGrpcServer, toServiceError } from "@segue/runtime";
import { runCli } from "@segue/cli";

/** A coordinator that answers over real gRPC what the test tells it to. */
export interface ScriptedCoordinator {
  readonly address: string;
  readonly evaluationRequests: SubmitEvaluationRequest[];
  /** What editJob was asked for. */
  readonly edits: Record<string, string>[];
  readonly registry: TensorRegistry;
  /** What watchJob streams. */
  updates: Job[];
  workers: WorkerInfo[];
  close(): Promise<void>;
}

const { spec: CHECKPOINT_SPEC } = parseJobSpec("{model: {layers: 1, dModel: 64}, data: {passkey: {}}, train: {steps: 100}}");
const LAYOUT = parameterLayout(CHECKPOINT_SPEC.model);
const WEIGHTS = Float32Array.from({ length: LAYOUT.size }, (_, index) => (index % 251) / 250 - 0.5);
/** `model.safetensors` of the checkpoint that can be exported. */
export const MODEL_BYTES = encodeSafetensors(
  LAYOUT.entries.map(({ name, shape, offset, size }) => ({
    ...{ name, shape, dtype: "F32" },
    data: new Uint8Array(WEIGHTS.buffer, 4 * offset, 4 * size),
  })),
  { format: "pt" },
);
/** As checkpoints had it before exports wrote one of their own. */
const CONFIG_BYTES = Buffer.from(
  JSON.stringify({ ...configToHuggingFace(CHECKPOINT_SPEC.model, 10), time_step_limit: [0, { __float__: "Infinity" }] }),
);

export function job(fields: Partial<Omit<Job, "$typeName" | "$unknown">> = {}): Job {
  const { spec } = parseJobSpec("{model: {layers: 1, dModel: 64}, data: {passkey: {}}, train: {steps: 100}}");
  return create(JobSchema, {
    jobId: "job-1",
    name: "job",
    phase: JobPhase.RUNNING,
    step: 10,
    totalSteps: 100,
    tokens: 1000n,
    totalTokens: 10_000n,
    loss: 2.5,
    tokensPerSecond: 12_345,
    workers: 2,
    members: [{ workerId: "gpu-1-abcdef", shards: 2, shardMs: 12.345, straggler: true, stepTimes }],
    parameters: 85_000n,
    submittedAtMs: 1_700_000_000_000n,
    spec: jobSpecToProto(spec),
    ...fields,
  });
}

const stepTimes = { computeMs: 24.69, exchangeMs: 3.21, restMs: 0.5 };
export const worker = create(WorkerInfoSchema, {
  workerId: "gpu-1-abcdef",
  name: "gpu-1",
  state: WorkerState.TRAINING,
  jobId: "job-1",
  shards: [0, 1],
  engines: ["cpu"],
  device: "cpu (AVX-512, 2 threads)",
  rssBytes: 2n ** 30n,
  shardMs: 12.345,
  straggler: true,
  stepTimes,
});

export async function startScriptedCoordinator(options: { token?: string } = {}): Promise<ScriptedCoordinator> {
  const registry = new TensorRegistry();
  publishCheckpoint(registry);
  const evaluationRequests: SubmitEvaluationRequest[] = [];
  const edits: Record<string, string>[] = [];
  const scripted = { updates: [job()], workers: [worker] };
  const notFound = (jobId: string): never => {
    throw toServiceError(new SegueError("JOB_NOT_FOUND", `There is no job ${jobId}.`, { status: "NOT_FOUND" }));
  };
  const known = (jobId: string): { job: Job } => (jobId === "job-1" ? { job: job() } : notFound(jobId));
  const handlers: Handlers<typeof Jobs> = {
    submitJob: async ({ source, validateOnly }) => {
      if (source.case !== "yaml") throw new Error("the CLI sends YAML");
      try {
        const { spec, warnings } = parseJobSpec(source.value);
        return { job: job({ jobId: validateOnly ? "" : "job-1", step: 0, spec: jobSpecToProto(spec) }), warnings };
      } catch (error) {
        throw toServiceError(error);
      }
    },
    getJob: async ({ jobId }) => known(jobId),
    listJobs: async ({ pageToken }) =>
      pageToken === "" ? { jobs: [job()], nextPageToken: "more" } : { jobs: [job({ jobId: "job-2" })], nextPageToken: "" },
    watchJob: async function* ({ jobId }) {
      known(jobId);
      for (const update of scripted.updates) yield { job: update };
    },
    pauseJob: async ({ jobId }) => ({ job: { ...known(jobId).job, phase: JobPhase.PAUSING } }),
    resumeJob: async ({ jobId }) => known(jobId),
    cancelJob: async ({ jobId }) => known(jobId),
    editJob: async ({ jobId, settings }) => {
      edits.push({ ...settings });
      return { ...known(jobId), warnings: ["a warning"] };
    },
    listWorkers: async () => ({ workers: scripted.workers }),
    drainWorker: async ({ workerId }) => ({ worker: { ...worker, workerId, state: WorkerState.DRAINING } }),
    listCheckpoints: async ({ jobId }) => {
      known(jobId);
      return {
        checkpoints: [{ step: 20, digest: "b".repeat(64), sizeBytes: 2048n, tokens: 5n, loss: 1.5, createdAtMs: 0n, path: "/x" }],
      };
    },
    submitEvaluation: async (request) => {
      evaluationRequests.push(request);
      const { name = "", cures = [] } = request.evaluation ?? {};
      const ids = (cures.length > 0 ? cures : [NO_CURE]).map((cure) =>
        evaluationId(request.jobId, 20, name, cureSchema.parse(cure)),
      );
      return { evaluationId: ids[0]!, step: 20, cells: 4, evaluations: ids.map((id) => ({ evaluationId: id, cells: 4 })) };
    },
  };
  const server = await startGrpcServer({
    listen: "127.0.0.1:0",
    logger: createLogger("scripted", "silent"),
    ...options,
    services: [
      { service: Jobs, handlers },
      { service: Tensors, handlers: tensorsHandlers(registry) },
    ],
  });
  return Object.assign(scripted, {
    address: server.address,
    evaluationRequests,
    edits,
    registry,
    close: async () => {
      await server.close(1_000);
      registry.close();
    },
  });
}

function publishCheckpoint(registry: TensorRegistry): void {
  const files = { "config.json": CONFIG_BYTES, "model.safetensors": MODEL_BYTES };
  const records = Object.fromEntries(
    Object.entries(files).map(([name, data]) => [
      name,
      { bytes: data.byteLength, sha256: createHash("sha256").update(data).digest("hex") },
    ]),
  );
  const manifest = Buffer.from(JSON.stringify({ format: 1, files: records }));
  for (const [name, data] of Object.entries({ ...files, "manifest.json": manifest })) {
    registry.publish(`job/job-1/checkpoint/20/${name}`, { dtype: "u8", shape: [data.byteLength], data });
  }
}

export interface CliRun {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command line in this process. */
export async function segue(args: readonly string[], env: Record<string, string> = {}): Promise<CliRun> {
  let stdout = "";
  let stderr = "";
  const exitCode = await runCli(args, {
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
    env,
    signal: new AbortController().signal,
  });
  return { exitCode, stdout, stderr };
}
