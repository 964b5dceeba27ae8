import { roundToBf16, SegueError, stretches, widenBf16, type PagedFloats, type ReductionNode } from "@segue/core";
import type { AdamWStep, Engine, EngineOptions, EngineReplicas, GradientExchange, LaneStates, TrainingPart } from "@segue/engine";
import {
  VOID,
  type CallName,
  type ComputeCalls,
  type EngineChoice,
  type EngineOffer,
  type ModelVectors,
  type MomentSlice,
  type ShardBatch,
} from "./calls.js";
import type { JoinParts } from "./join-parts.js";
import { withInitialStates } from "./initial-states.js";
import { OuterStep } from "./outer-step.js";
import { sharedFloats } from "./shared.js";
import { TreeSum } from "./tree-sum.js";
import { Unfinished } from "./unfinished.js";

/** Where engines come from; `@segue/engine` in the product. */
export interface EngineFactory {
  availableEngines(threads: number, gpu: number): Promise<readonly EngineOffer[]>;
  createEngine(choice: EngineChoice, options: EngineOptions): Promise<Engine>;
  /** Fills `into`, [P]. */
  drawParameters(model: EngineOptions["model"], seed: number, into: PagedFloats): void;
  /** Absent: these engines do not know NCCL. */
  ncclVersion?(library?: string): string;
}

type Answer<Name extends CallName> = ComputeCalls[Name]["response"];

type Handlers = {
  [Name in CallName]: (request: ComputeCalls[Name]["request"]) => Answer<Name> | Promise<Answer<Name>> | Unfinished<Answer<Name>>;
};

/** The compute thread's side of {@link ComputeCalls}: one engine and the lane states of the shards placed here. */
export class ComputeHost implements Handlers {
  readonly #factory: EngineFactory;
  readonly #fence: Int32Array;
  #engine: Engine | undefined;
  #outer: OuterStep | undefined;
  #exchange: GradientExchange | undefined;
  /** Instead of `#outer` where the engine's exchange joins replicas. */
  #replicas: EngineReplicas | undefined;
  /** f32 [P]: the gradients of an engine that hands them out. */
  #sum: Float32Array | undefined;
  #lanesPerShard = 0;
  /** When the device was done with the step before. */
  #stepEndedMs = 0;
  readonly #statesOfShard = new Map<number, LaneStates>();
  #gradients = new TreeSum();
  #slices = new TreeSum();

  constructor(factory: EngineFactory, fence: Int32Array) {
    this.#factory = factory;
    this.#fence = fence;
  }

  async probe({ threads, gpu }: ComputeCalls["probe"]["request"]): Promise<readonly EngineOffer[]> {
    return this.#factory.availableEngines(threads, gpu);
  }

  ncclVersion({ library }: ComputeCalls["ncclVersion"]["request"]): string {
    return this.#factory.ncclVersion?.(library) ?? "";
  }

  async open({ engine, options, lanesPerShard }: ComputeCalls["open"]["request"]): Promise<ComputeCalls["open"]["response"]> {
    this.close();
    this.#statesOfShard.clear();
    this.#gradients = new TreeSum();
    this.#slices = new TreeSum();
    this.#lanesPerShard = lanesPerShard;
    this.#engine = await this.#factory.createEngine(engine, options);
    return { description: this.#engine.description, parameters: this.#engine.layout.size };
  }

  initialise({ seed, model }: ComputeCalls["initialise"]["request"]): null {
    const [weights, ...others] = model;
    this.#factory.drawParameters(this.#open.model, seed, required(weights, "weights to fill"));
    for (const { floats } of others.flatMap((vector) => [...stretches(vector)])) floats.fill(0);
    return null;
  }

  load({ model, slice, states }: ComputeCalls["load"]["request"]): null {
    const engine = this.#open;
    // Its generation is over.
    this.#closeExchange();
    const { weights, moments, outerMomentum } = modelParts(model, slice);
    engine.holdMoments?.(slice?.begin ?? 0, slice?.end ?? weights.length);
    for (const { floats, offset } of stretches(weights)) engine.writeParameters(floats, offset);
    for (const { first, second, offset } of moments) engine.writeMoments(first, second, offset);
    this.#outer = outerMomentum && new OuterStep(engine, outerMomentum);
    for (const laneStates of this.#statesOfShard.values()) engine.freeStates(laneStates);
    this.#statesOfShard.clear();
    for (const { shard, states: values } of states) {
      const laneStates = engine.createStates(this.#lanesPerShard);
      engine.writeStates(laneStates, values);
      this.#statesOfShard.set(shard, laneStates);
    }
    return null;
  }

  /** Unfinished where a device of its own copies; steps may be begun before it is waited for. */
  save({ epoch, model, slice, states }: ComputeCalls["save"]["request"]): null | Unfinished<null> {
    this.#refuseVoid(epoch);
    const engine = this.#open;
    const { weights, moments, outerMomentum } = modelParts(model, slice);
    if (outerMomentum) this.#readMomentum(outerMomentum);
    if (!engine.snapshot) {
      for (const { floats, offset } of stretches(weights)) engine.readParameters(floats, offset);
      for (const { first, second, offset } of moments) engine.readMoments(first, second, offset);
      for (const { shard, states: into } of states) engine.readStates(this.#laneStates(shard), into);
      return null;
    }
    const wait = engine.snapshot({
      parameters: [...stretches(weights)],
      firstMoment: moments.map(({ first, offset }) => ({ floats: first, offset })),
      secondMoment: moments.map(({ second, offset }) => ({ floats: second, offset })),
      states: states.map(({ shard, states: into }) => ({ states: this.#laneStates(shard), into })),
    });
    const finish = (): null => {
      wait();
      this.#refuseVoid(epoch);
      return null;
    };
    // Where this thread itself computes, the next step may wait for peers, who wait until this copy is reported.
    return engine.worksAhead ? new Unfinished(finish) : finish();
  }

  gradient(request: ComputeCalls["gradient"]["request"]): ComputeCalls["gradient"]["response"] {
    const startedMs = performance.now();
    const lossSums: number[] = [];
    this.#gradients.sum(request.node, request.into, (node, into) => {
      if (node.hi - node.lo > 1) return undefined;
      lossSums.push(this.#shardGradient(request, node.lo, into));
      return into;
    });
    return { lossSums, computeMs: performance.now() - startedMs };
  }

  join({ epoch, ...parts }: ComputeCalls["join"]["request"]): null {
    this.#refuseVoid(epoch);
    this.#join(parts);
    return null;
  }

  apply({ epoch, gradientSum, parts, adamw }: ComputeCalls["apply"]["request"]): ComputeCalls["apply"]["response"] {
    this.#refuseVoid(epoch);
    const startedMs = performance.now();
    if (parts) this.#join({ ...parts, into: gradientSum });
    const gradientNorm = this.#open.applyAdamW(gradientSum, adamw);
    return { gradientNorm, computeMs: performance.now() - startedMs };
  }

  /** Unfinished where a device of its own computes; then the next step may be begun before this one is waited for. */
  wholeStep({ adamw, ...request }: ComputeCalls["wholeStep"]["request"]): Answer<"wholeStep"> | Unfinished<Answer<"wholeStep">> {
    const engine = this.#open;
    this.#refuseVoid(request.epoch);
    if (!engine.trainStep) return this.#soleStep(request, adamw);
    const startedMs = performance.now();
    const exchange = this.#replicas ? undefined : this.#exchange;
    const parts = request.batches.map(({ shard }) => this.#shardPart(request, shard));
    const finish = engine.trainStep(parts, adamw, request.rules, exchange);
    const receivedBytes = exchange?.receivedBytes ?? 0;
    const wait = (): Answer<"wholeStep"> => {
      const result = finish();
      // Whoever waited for others may have been let go in vain.
      this.#refuseVoid(request.epoch);
      const endedMs = performance.now();
      const computeMs = endedMs - Math.max(startedMs, this.#stepEndedMs) - result.exchangeMs;
      this.#stepEndedMs = endedMs;
      return { ...result, computeMs, receivedBytes };
    };
    return engine.worksAhead ? new Unfinished(wait) : wait();
  }

  /** For engines that hand out their gradients. */
  #soleStep(request: Omit<ComputeCalls["wholeStep"]["request"], "adamw">, adamw: AdamWStep): Answer<"wholeStep"> {
    const lo = request.batches[0]?.shard ?? 0;
    const node = { lo, hi: lo + request.batches.length };
    const into = (this.#sum ??= sharedFloats(this.#open.layout.size));
    const { lossSums, computeMs } = this.gradient({ ...request, node, into });
    const applied = this.apply({ epoch: request.epoch, gradientSum: into, adamw });
    const { gradientNorm } = applied;
    return { lossSums, gradientNorm, computeMs: computeMs + applied.computeMs, exchangeMs: 0, receivedBytes: 0 };
  }

  exchangeOpen({ epoch, plan, patienceMs, ncclLibrary }: ComputeCalls["exchangeOpen"]["request"]): Answer<"exchangeOpen"> {
    this.#refuseVoid(epoch);
    this.#closeExchange();
    const engine = this.#open;
    const check = (): void => this.#refuseVoid(epoch);
    try {
      this.#exchange = engine.openExchange?.(plan, { check, patienceMs, ncclLibrary });
      if (!this.#exchange)
        throw unavailable(`${engine.description.detail} hands its gradients out; sync.transport grpc carries them`);
      this.#openReplicas(this.#exchange);
      return { offer: this.#exchange.offer };
    } catch (error) {
      if (!(error instanceof SegueError && error.code === "DEVICE_OUT_OF_MEMORY")) throw error;
      this.#closeExchange();
      throw unavailable(`no room for the exchange: ${error.message}; sync.transport grpc needs none on the device`, error);
    }
  }

  /** Under diloco outer steps are made where the exchange is. */
  #openReplicas(exchange: GradientExchange): void {
    if (!this.#outer) return;
    this.#replicas = required(this.#open.openReplicas?.(exchange), "replicas in its engine");
    this.#outer.giveMomentum(this.#replicas);
    this.#outer = undefined;
  }

  exchangeConnect({ epoch, offers }: ComputeCalls["exchangeConnect"]["request"]): null {
    this.#refuseVoid(epoch);
    required(this.#exchange, "exchange").connect(offers);
    return null;
  }

  end(): null {
    this.close();
    return null;
  }

  /** Idempotent. */
  close(): void {
    this.#closeExchange();
    this.#engine?.close();
    this.#engine = undefined;
    this.#outer = undefined;
    this.#sum = undefined;
    this.#stepEndedMs = 0;
  }

  #closeExchange(): void {
    this.#exchange?.close();
    this.#exchange = undefined;
    this.#replicas?.close();
    this.#replicas = undefined;
  }

  round({ epoch, floats, into }: ComputeCalls["round"]["request"]): null {
    this.#refuseVoid(epoch);
    roundToBf16(floats, into);
    return null;
  }

  widen({ epoch, pairs }: ComputeCalls["widen"]["request"]): null {
    this.#refuseVoid(epoch);
    for (const { from, into } of pairs) widenBf16(from, into);
    return null;
  }

  replicaBegin({ epoch, isFirst }: ComputeCalls["replicaBegin"]["request"]): null {
    this.#refuseVoid(epoch);
    (this.#replicas ?? required(this.#outer, "outer step")).begin(isFirst);
    return null;
  }

  replicaEnd({ epoch, into }: ComputeCalls["replicaEnd"]["request"]): null {
    this.#refuseVoid(epoch);
    if (into) required(this.#outer, "outer step").end(into);
    else required(this.#replicas, "replicas in its engine").end();
    return null;
  }

  outerStep({ epoch, sum, parts, outer }: ComputeCalls["outerStep"]["request"]): Answer<"outerStep"> {
    this.#refuseVoid(epoch);
    if (!sum) {
      const exchangeMs = required(this.#replicas, "replicas in its engine").outerStep(outer)();
      // Whoever waited for others may have been let go in vain.
      this.#refuseVoid(epoch);
      return { exchangeMs, receivedBytes: this.#exchange?.receivedBytes ?? 0 };
    }
    if (parts) this.#join({ ...parts, into: sum });
    required(this.#outer, "outer step").apply(sum, outer);
    return { exchangeMs: 0, receivedBytes: 0 };
  }

  #readMomentum(into: PagedFloats): void {
    const replicas = this.#replicas;
    if (!replicas) return required(this.#outer, "outer step").readMomentum(into);
    for (const { floats, offset } of stretches(into)) replicas.readMomentum(floats, offset);
  }

  #join({ node, parts, into }: JoinParts): void {
    const sliceOf = new Map(parts.map(({ node, slice }) => [`${node.lo}-${node.hi}`, slice]));
    const known = ({ lo, hi }: ReductionNode, offered: Float32Array): Float32Array | undefined => {
      const slice = sliceOf.get(`${lo}-${hi}`);
      if (!(slice instanceof Uint16Array)) return slice;
      widenBf16(slice, offered);
      return offered;
    };
    const sum = this.#slices.sum(node, into, known);
    if (sum !== into) into.set(sum);
  }

  get #open(): Engine {
    return required(this.#engine, "engine");
  }

  #laneStates(shard: number): LaneStates {
    return required(this.#statesOfShard.get(shard), `lane states of shard ${shard}`);
  }

  #shardGradient(request: ComputeCalls["gradient"]["request"], shard: number, into: Float32Array): number {
    this.#refuseVoid(request.epoch);
    const { batch, states } = this.#shardPart(request, shard);
    return this.#open.forwardBackward(batch, states, into, request.rules);
  }

  #shardPart(request: Pick<ComputeCalls["gradient"]["request"], "batches" | "initialState">, shard: number): TrainingPart {
    const { batches, initialState } = request;
    const batch = required(
      batches.find((candidate) => candidate.shard === shard),
      `segments of shard ${shard}`,
    );
    const part = { batch: segmentBatch(batch, this.#lanesPerShard), states: this.#laneStates(shard) };
    return initialState ? withInitialStates(this.#open, part, initialState, shard * this.#lanesPerShard) : part;
  }

  #refuseVoid(epoch: number): void {
    if (epoch < Atomics.load(this.#fence, 0)) throw new SegueError(VOID, "the round was withdrawn", { status: "ABORTED" });
  }
}

function segmentBatch(batch: ShardBatch, lanes: number): Parameters<Engine["forwardBackward"]>[0] {
  return {
    lanes,
    tokens: batch.tokens.length / lanes,
    tokens_BT: batch.tokens,
    labels_BT: batch.labels,
    weights_BT: batch.weights,
    resets_BT: batch.resets,
  };
}

interface ModelParts {
  readonly weights: PagedFloats;
  /** The same stretches of both. */
  readonly moments: readonly { readonly first: Float32Array; readonly second: Float32Array; readonly offset: number }[];
  readonly outerMomentum: PagedFloats | undefined;
}

function modelParts([weights, first, second, outerMomentum]: ModelVectors, slice?: MomentSlice): ModelParts {
  const seconds = [...stretches(required(slice?.second ?? second, "second moments"))];
  const begin = slice?.begin ?? 0;
  const moments = Array.from(stretches(required(slice?.first ?? first, "first moments")), ({ floats, offset }, page) => {
    return { first: floats, second: required(seconds[page], "second moments").floats, offset: begin + offset };
  });
  return { weights: required(weights, "weights"), moments, outerMomentum };
}

function unavailable(message: string, cause?: unknown): SegueError {
  return new SegueError("EXCHANGE_UNAVAILABLE", message, { status: "FAILED_PRECONDITION", cause });
}

function required<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new SegueError("INTERNAL", `the compute thread has no ${what}`, { status: "INTERNAL" });
  return value;
}
