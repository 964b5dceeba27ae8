import { availableParallelism } from "node:os";
import { laneStateFloats, modelVectors, shardsPerPlacement, SegueError, validateJobSpec, type JobSpec } from "@segue/core";
import type { Join, RunRound, Segments, TensorRegistry, Withdraw } from "@segue/protocol";
import { faultPoint, jobSpecInputFromProto, type Logger, type Security } from "@segue/runtime";
import type { AttachMessage } from "../attach/attach-message.js";
import { VOID, type EngineChoice } from "../compute/calls.js";
import { ComputeThread } from "../compute/compute-thread.js";
import { Peers } from "../tensors/peers.js";
import type { PullCounter } from "../tensors/pull-counter.js";
import { SoleExchange, type Exchange, type PullCounts } from "./exchange.js";
import { GrpcExchange } from "./grpc-exchange.js";
import { connectDevices } from "./device-exchange.js";
import { digestOf } from "./digest.js";
import { judgeMemory, memoryInsufficient } from "./memory-check.js";
import { groupMembership, membershipOf, momentPlan, type Membership, type MomentPlan } from "./membership.js";
import { fillMoments } from "./moments.js";
import { exchangePatienceMs } from "./patience.js";
import { blaming, PeerFailure } from "./peer-failure.js";
import { refs } from "./refs.js";
import { ReplicaSteps } from "./replica-steps.js";
import { stepSegments, type StepSegments } from "./segments.js";
import { shardStates, Snapshots, weightsOf } from "./snapshots.js";
import { StepRunner, type RoundRunner, type StepOutcome } from "./steps.js";
import { syncToStep } from "./sync.js";

/** How long the next member may take to come to the end of a round; a lost one shows at once, by its connection. */
const COPY_PATIENCE_MS = 300_000;

/** What a replica needs of its worker. */
export interface ReplicaHost {
  readonly computeModule: URL;
  readonly registry: TensorRegistry;
  readonly pulls: PullCounter;
  readonly security: Security;
  /** The operator's choice; "auto" leaves it to the job. */
  readonly engine: EngineChoice;
  /** What "auto" comes to. */
  readonly bestEngine: string;
  readonly threads: number;
  /** Ordinal of the worker's GPU. */
  readonly gpu?: number | undefined;
  /** Memory that the job must fit into. */
  readonly memoryBytes: number;
  /** Path of NCCL's library, if the loader does not find it. */
  readonly ncclLibrary?: string | undefined;
  /** Of a page of weights and moments; only tests want it small. */
  readonly pageFloats?: number | undefined;
  readonly logger: Logger;
  readonly report: (message: AttachMessage) => void;
}

/** Vectors of P floats: change of the weights, first and second moments. */
const SUMMED_OF_REPLICAS = 3;

/** The engine opened for the job, with what depends on its sizes. */
interface OpenEngine {
  readonly compute: ComputeThread;
  readonly snapshots: Snapshots;
  readonly detail: string;
  readonly parameters: number;
}

/** One generation as this worker lives it, until Withdraw, Failure or the next Join. */
interface Attempt {
  readonly generation: number;
  readonly epoch: number;
  readonly spec: JobSpec;
  readonly membership: Membership;
  readonly abort: AbortController;
  readonly segments: Map<number, StepSegments>;
  phase: "joining" | "ready" | "running";
  /** Under sync.optimizer sharded. */
  moments?: MomentPlan | undefined;
  /** Optimizer steps the engine has applied, at the last round boundary. */
  step: number;
  /** When the round before was reported, or the first one was asked for, by `performance.now()`. */
  roundSinceMs?: number;
  work?: RoundRunner;
  /** What had come from peers by the end of the round before. */
  received: PullCounts;
}

interface ExchangeParts {
  readonly compute: ComputeThread;
  readonly membership: Membership;
  readonly vectorFloats: number;
}

interface FinishedRound {
  readonly firstStep: number;
  readonly steps: number;
  readonly results: StepOutcome[];
  readonly weightsDigest: string;
}

/**
 * One job on this worker: idle -> joining -> ready -> running -> ready ..., back to idle at Withdraw, Failure and loss of the coordinator.
 * Messages of any generation but the current one are void. Work runs one task after the other; ending an attempt stops its task soon and
 * makes all its effects void.
 */
export class JobReplica {
  readonly #jobId: string;
  readonly #host: ReplicaHost;
  readonly #peers: Peers;
  #engine: OpenEngine | undefined;
  #attempt: Attempt | undefined;
  #newestGeneration = 0;
  #epoch = 0;
  #computingStep = 0;
  #tail: Promise<void> = Promise.resolve();

  constructor(jobId: string, host: ReplicaHost) {
    this.#jobId = jobId;
    this.#host = host;
    this.#peers = new Peers(host.security);
  }

  /** Step being computed; 0 when idle. */
  get computingStep(): number {
    return this.#attempt?.phase === "running" ? this.#computingStep : 0;
  }

  join(join: Join, workerId: string): void {
    const { generation, step } = join;
    if (generation <= this.#newestGeneration) return;
    this.#newestGeneration = generation;
    this.#endAttempt();
    try {
      if (!join.spec) throw new SegueError("JOIN_INVALID", "the Join carries no job spec");
      const { spec } = validateJobSpec(jobSpecInputFromProto(join.spec));
      const membership = membershipOf(join, workerId, spec.batch.shards);
      const abort = new AbortController();
      const attempt: Attempt = {
        generation,
        epoch: this.#epoch,
        spec,
        membership,
        abort,
        segments: new Map(),
        phase: "joining",
        step,
        received: { pulls: 0, bytes: 0 },
      };
      this.#attempt = attempt;
      this.#enqueue(attempt, () => this.#bringToStep(attempt, join));
    } catch (error) {
      this.#reportFailure(generation, error);
    }
  }

  segments(message: Segments): void {
    const attempt = this.#current(message.generation);
    if (!attempt) return;
    try {
      attempt.segments.set(message.step, stepSegments(message, attempt.spec));
    } catch (error) {
      this.#fail(attempt, error);
    }
  }

  runRound(message: RunRound): void {
    const attempt = this.#current(message.generation);
    if (!attempt) return;
    if (attempt.phase !== "ready" || attempt.step !== message.firstStep) {
      const state = `${attempt.phase} at step ${attempt.step}`;
      this.#fail(attempt, new SegueError("ROUND_UNEXPECTED", `asked to run from step ${message.firstStep} while ${state}`));
      return;
    }
    attempt.phase = "running";
    attempt.roundSinceMs ??= performance.now();
    this.#enqueue(attempt, () => this.#runRound(attempt, message));
  }

  withdraw({ generation }: Withdraw): void {
    if (this.#current(generation)) this.#endAttempt();
  }

  /** The coordinator is away: what it asked for is void, and the next one counts its generations anew. Snapshots stay. */
  detach(): void {
    this.#endAttempt();
    this.#newestGeneration = 0;
  }

  /** Forgets the job. Idempotent. */
  async close(): Promise<void> {
    this.#endAttempt();
    this.#newestGeneration = Number.MAX_SAFE_INTEGER;
    await this.#engine?.compute.close();
    await this.#tail;
    await this.#engine?.compute.close();
    this.#engine = undefined;
    this.#peers.close();
    this.#host.registry.removePrefix(refs.job(this.#jobId));
  }

  #current(generation: number): Attempt | undefined {
    return this.#attempt?.generation === generation ? this.#attempt : undefined;
  }

  async #bringToStep(attempt: Attempt, join: Join): Promise<void> {
    const { spec, membership, abort } = attempt;
    if (!this.#engine) this.#refuseTooLarge(spec, membership.peers.length + 1);
    const engine = await this.#openEngine(spec);
    const { compute, snapshots, parameters, detail } = engine;
    const peers = this.#peers;
    peers.retain([...membership.peers.map(({ address }) => address), join.weightsAddress, join.statesAddress]);
    const isSharded = spec.sync.optimizer === "sharded";
    if (isSharded && membership.peers.length > 0) refuseUnshardable(join.transport);
    const moments = isSharded ? momentPlan(membership, parameters) : undefined;
    attempt.moments = moments;
    await syncToStep({ join, seed: spec.seed, membership, compute, snapshots, peers, moments, signal: abort.signal });
    const { signal } = abort;
    const { epoch, segments } = attempt;
    const isDiloco = spec.sync.mode === "diloco";
    // Under diloco the exchange is over replicas and counts outer steps; weights and moments travel.
    const group = isDiloco ? groupMembership(membership, shardsPerPlacement(spec)) : membership;
    const isAlone = group.peers.length === 0;
    const vectorFloats = isDiloco ? SUMMED_OF_REPLICAS * parameters : parameters;
    const exchange = await this.#openExchange(attempt, join.transport, { compute, membership: group, vectorFloats });
    const onStep = (step: number): void => void (this.#computingStep = step);
    const common = { spec, membership: group, compute, epoch, segments, signal, onStep };
    attempt.work = isDiloco
      ? new ReplicaSteps({ ...common, parameters, exchange: isAlone ? new SoleExchange(vectorFloats) : exchange })
      : new StepRunner({ ...common, exchange });
    attempt.phase = "ready";
    const { generation, step } = attempt;
    this.#report({
      case: "ready",
      value: { jobId: this.#jobId, generation, step, parameters: BigInt(parameters), engine: detail },
    });
  }

  /** @returns undefined where the engine needs none from this thread */
  async #openExchange(attempt: Attempt, transport: string, parts: ExchangeParts): Promise<Exchange | undefined> {
    if (parts.membership.peers.length === 0) return undefined;
    const { spec, epoch, step, abort } = attempt;
    const { mode, innerSteps, wire } = spec.sync;
    const { registry, ncclLibrary } = this.#host;
    const patienceMs = exchangePatienceMs(spec);
    const common = { ...parts, jobId: this.#jobId, epoch, registry, peers: this.#peers, patienceMs, signal: abort.signal };
    if (transport === "ipc" || transport === "nccl") {
      const sharded = spec.sync.optimizer === "sharded";
      const vectors = mode === "diloco" ? SUMMED_OF_REPLICAS : 1;
      await connectDevices({ ...common, transport, vectors, wire, sharded, ncclLibrary });
      return undefined;
    }
    return new GrpcExchange({ ...common, wire }, mode === "diloco" ? step / innerSteps : step);
  }

  async #runRound(attempt: Attempt, { firstStep, steps, nextSteps }: RunRound): Promise<void> {
    const { membership, epoch, work, segments } = attempt;
    const engine = this.#engine;
    if (!engine || !work) throw new SegueError("INTERNAL", "ready without an engine", { status: "INTERNAL" });
    const { compute, snapshots } = engine;
    // A round starts only when everything before it is committed.
    snapshots.retain((step) => step >= firstStep);
    const { signal } = attempt.abort;
    const results = await work.run(firstStep, steps);
    const lastStep = firstStep + steps;
    await faultPoint("worker.snapshotBegins", lastStep);
    const slice = attempt.moments && snapshots.momentsBuffer(attempt.moments.own);
    const buffers = {
      model: snapshots.modelBuffer(),
      moments: slice && [slice],
      states: new Map(membership.self.shards.map((shard) => [shard, snapshots.statesBuffer()])),
    };
    const endedMs = performance.now();
    const sinceEnd = (): number => performance.now() - endedMs;
    const saved = compute.call("save", { epoch, model: buffers.model, slice, states: shardStates(buffers.states) });
    saved.catch(() => undefined);
    for (const step of segments.keys()) if (step < lastStep) segments.delete(step);
    // The device goes on while the copy is made, hashed, reported and committed.
    work.beginEarly(lastStep, lastStep + nextSteps);
    const hashing = async (): Promise<{ copiedMs: number; digest: string }> => {
      await saved;
      signal.throwIfAborted();
      return { copiedMs: sinceEnd(), digest: await digestOf(weightsOf(buffers.model), signal) };
    };
    const { copiedMs, digest } = await hashing().catch((error: unknown) => {
      snapshots.giveBack(buffers);
      throw error;
    });
    const hashedMs = sinceEnd();
    snapshots.add({ step: lastStep, ...buffers, digest });
    await faultPoint("worker.snapshotPublished", lastStep);
    await this.#copyNextSlice(attempt, snapshots, lastStep);
    attempt.step = lastStep;
    attempt.phase = "ready";
    this.#reportRound(attempt, { firstStep, steps, results, weightsDigest: digest }, { copiedMs, hashedMs });
    await faultPoint("worker.roundReported", lastStep);
  }

  /** So that a committed round has two holders of every slice. The next member gives what it has published, whatever it computes. */
  async #copyNextSlice({ moments, abort }: Attempt, snapshots: Snapshots, step: number): Promise<void> {
    if (!moments?.next) return;
    const { slice, member } = moments.next;
    const { signal } = abort;
    const into = snapshots.momentsBuffer(slice);
    const ref = refs.moments(this.#jobId, step, slice);
    const filling = fillMoments(into, [], [slice], (_, floats, begin) =>
      blaming(
        member,
        this.#peers.pull({ address: member.address, ref, into: floats, begin, patienceMs: COPY_PATIENCE_MS, signal }),
      ),
    );
    await filling.catch((error: unknown) => {
      snapshots.giveBack({ model: [], states: new Map(), moments: [into] });
      throw error;
    });
    signal.throwIfAborted();
    snapshots.addMoments(step, into);
    await faultPoint("worker.sliceCopied", step);
  }

  /** @param snapshot milliseconds after the last step until everything was copied, and the weights hashed */
  #reportRound(attempt: Attempt, round: FinishedRound, snapshot: { readonly copiedMs: number; readonly hashedMs: number }): void {
    const { generation, received: before } = attempt;
    const { firstStep, steps, results } = round;
    const nowMs = performance.now();
    const elapsedMs = nowMs - (attempt.roundSinceMs ?? nowMs);
    attempt.roundSinceMs = nowMs;
    const sum = (field: "computeMs" | "exchangeMs"): number => results.reduce((total, result) => total + result[field], 0);
    const { pulls, bytes } = (attempt.received = results.at(-1)?.received ?? before);
    const costs = { computeMs: sum("computeMs"), exchangeMs: sum("exchangeMs"), elapsedMs };
    const pulled = { pulls: pulls - before.pulls, pulledBytes: bytes - before.bytes };
    this.#host.logger.debug({ jobId: this.#jobId, generation, firstStep, steps, ...costs, ...snapshot, ...pulled }, "round_done");
    this.#report({ case: "roundDone", value: { jobId: this.#jobId, generation, ...round, elapsedMs } });
  }

  /** Better said now than by the kernel, which would kill this process at the first step. @throws SegueError MEMORY_INSUFFICIENT */
  #refuseTooLarge(spec: JobSpec, workers: number): void {
    const { engine: operatorChoice, bestEngine, threads, memoryBytes, logger } = this.#host;
    const chosen = [spec.train.engine, operatorChoice, bestEngine].find((name) => name !== "auto");
    const engine = chosen === "cpu" || chosen === "cuda" ? chosen : "tfjs";
    const options = { workers, engine, threads: threads === 0 ? availableParallelism() : threads } as const;
    const need = judgeMemory(spec, options, memoryBytes);
    if (need.verdict === "impossible") throw memoryInsufficient(spec, options, need);
    if (need.verdict === "tight") logger.warn({ jobId: this.#jobId, ...need }, "the job may need more memory than there is");
  }

  async #openEngine(spec: JobSpec): Promise<OpenEngine> {
    if (this.#engine?.compute.alive) return this.#engine;
    const { engine: operatorChoice, threads, gpu, computeModule, registry, pulls } = this.#host;
    const jobChoice = spec.train.engine;
    if (jobChoice !== "auto" && operatorChoice !== "auto" && jobChoice !== operatorChoice) {
      const message = `the job wants engine ${jobChoice}, this worker runs ${operatorChoice} only (SEGUE_ENGINE)`;
      throw new SegueError("ENGINE_UNAVAILABLE", message, { status: "FAILED_PRECONDITION" });
    }
    const compute = new ComputeThread(computeModule);
    try {
      const { description, parameters } = await compute.call("open", {
        engine: jobChoice === "auto" ? operatorChoice : jobChoice,
        options: { model: spec.model, precision: spec.train.precision, threads, gpu },
        lanesPerShard: spec.batch.lanesPerShard,
      });
      const sizes = {
        parameters,
        vectors: spec.sync.optimizer === "sharded" ? 1 : modelVectors(spec),
        lanesPerShard: spec.batch.lanesPerShard,
        laneStateFloats: laneStateFloats(spec.model),
        pageFloats: this.#host.pageFloats,
      };
      // Snapshots outlive a crash of the engine.
      const snapshots = this.#engine?.snapshots ?? new Snapshots(registry, pulls, { jobId: this.#jobId, ...sizes });
      this.#engine = { compute, snapshots, detail: description.detail, parameters };
      return this.#engine;
    } catch (error) {
      await compute.close();
      throw error;
    }
  }

  #enqueue(attempt: Attempt, task: () => Promise<void>): void {
    this.#tail = this.#tail.then(async () => {
      if (attempt.abort.signal.aborted) return;
      try {
        await task();
      } catch (error) {
        this.#fail(attempt, error);
      }
    });
  }

  #fail(attempt: Attempt, error: unknown): void {
    // A withdrawn attempt fails in whatever way it was interrupted; nobody waits for it.
    if (attempt.abort.signal.aborted) return;
    this.#endAttempt();
    this.#reportFailure(attempt.generation, error);
  }

  #reportFailure(generation: number, error: unknown): void {
    const cause = error instanceof PeerFailure ? error.cause : error;
    const code = cause instanceof SegueError ? cause.code : "INTERNAL";
    const message = cause instanceof Error ? cause.message : String(cause);
    const peerWorkerId = error instanceof PeerFailure ? error.workerId : "";
    this.#host.logger.warn({ jobId: this.#jobId, generation, code, peerWorkerId, err: cause }, "round_failed");
    this.#report({ case: "failure", value: { jobId: this.#jobId, generation, code, message, peerWorkerId } });
  }

  #endAttempt(): void {
    this.#epoch++;
    this.#engine?.compute.raiseFence(this.#epoch);
    this.#attempt?.abort.abort(new SegueError(VOID, "the round was withdrawn", { status: "ABORTED" }));
    this.#attempt = undefined;
    this.#host.registry.removePrefix(refs.generations(this.#jobId));
  }

  #report(message: AttachMessage): void {
    this.#host.report(message);
  }
}

/** @throws SegueError SHARDING_UNAVAILABLE */
function refuseUnshardable(transport: string): void {
  if (transport === "ipc" || transport === "nccl") return;
  const message =
    "sync.optimizer sharded wants members whose devices exchange by themselves (sync.transport ipc or nccl), and these cannot; " +
    "set sync.optimizer to replicated, or workers.max to 1";
  throw new SegueError("SHARDING_UNAVAILABLE", message, { status: "FAILED_PRECONDITION" });
}
