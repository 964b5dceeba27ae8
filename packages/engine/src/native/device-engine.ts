import type { ModelSpec, ParameterLayout } from "@segue/core";
import type { Device } from "../devices/device.js";
import type { DeviceExchange } from "../exchange/device-exchange.js";
import type { EngineReplicas } from "../exchange/engine-replicas.js";
import type { ExchangeOptions, ExchangePlan, GradientExchange } from "../exchange/gradient-exchange.js";
import type {
  AdamWStep,
  Engine,
  EngineDescription,
  EngineSnapshot,
  ForwardOptions,
  LaneStates,
  PromptBatch,
  SegmentBatch,
  SegmentRules,
  TrainingPart,
  TrainingResult,
} from "../engine.js";
import { expectPart } from "../input-checks.js";
import { DeviceModel } from "./device-model.js";
import { ForwardPasses } from "./inference.js";
import { StateStore } from "./lane-states.js";
import { Training } from "./training.js";

/** The engine over a {@link Device}: Mamba-2 with a hand-written backward pass. */
export class DeviceEngine<F, I> implements Engine {
  readonly description: EngineDescription;
  readonly #model: DeviceModel<F, I>;
  readonly #states: StateStore<F, I>;
  readonly #training: Training<F, I>;
  readonly #passes: ForwardPasses<F, I>;

  constructor(name: EngineDescription["name"], device: Device<F, I>, model: ModelSpec) {
    this.description = { name, detail: device.detail };
    this.#model = new DeviceModel(device, model);
    this.#states = new StateStore(this.#model);
    this.#training = new Training(this.#model);
    this.#passes = new ForwardPasses(this.#model);
  }

  get model(): ModelSpec {
    return this.#model.spec;
  }

  get layout(): ParameterLayout {
    return this.#model.layout;
  }

  get worksAhead(): boolean {
    return this.#model.device.downloadLater !== undefined;
  }

  /** Memory of the activations of the largest segment so far. */
  get arenaBytes(): number {
    return 4 * this.#model.arena.floats;
  }

  readParameters(into: Float32Array, offset = 0): void {
    const { device, parameters } = this.#model;
    expectPart("parameters", into.length, offset, this.layout.size);
    device.download(device.slice(parameters, offset, into.length), into);
  }

  writeParameters(from: Float32Array, offset?: number): void {
    const { device, parameters } = this.#model;
    const begin = expectPart("parameters", from.length, offset, this.layout.size);
    device.upload(from, device.slice(parameters, begin, from.length));
  }

  readMoments(first: Float32Array, second: Float32Array, offset?: number): void {
    this.#training.readMoments(first, second, offset);
  }

  writeMoments(first: Float32Array, second: Float32Array, offset?: number): void {
    this.#training.writeMoments(first, second, offset);
  }

  holdMoments(begin: number, end: number): void {
    this.#training.holdMoments(begin, end);
  }

  snapshot(into: EngineSnapshot): () => void {
    return this.#training.snapshot(into);
  }

  createStates(lanes: number): LaneStates {
    return this.#states.create(lanes);
  }

  freeStates(states: LaneStates): void {
    this.#states.free(states);
  }

  forkStates(states: LaneStates, lane: number, copies: number): LaneStates {
    return this.#states.fork(states, lane, copies);
  }

  zeroStates(states: LaneStates, part: "ssm" | "conv"): void {
    this.#states.zero(states, part);
  }

  readStates(states: LaneStates, into: Float32Array): void {
    this.#states.read(states, into);
  }

  writeStates(states: LaneStates, from: Float32Array): void {
    this.#states.write(states, from);
  }

  mixStates(into: LaneStates, from: LaneStates, factors_BLH: Float32Array | Float64Array, accumulate: boolean): void {
    this.#states.mix(into, from, factors_BLH, accumulate);
  }

  headNorms(states: LaneStates): Float32Array {
    return this.#states.headNorms(states);
  }

  /** See {@link StateStore.statistics}. */
  stateStatistics(states: LaneStates): Float32Array {
    return this.#states.statistics(states);
  }

  forwardBackward(batch: SegmentBatch, states: LaneStates, gradient: Float32Array, rules?: SegmentRules): number {
    return this.#training.forwardBackward(batch, states, gradient, rules);
  }

  applyAdamW(gradientSum: Float32Array, step: AdamWStep): number {
    return this.#training.applyAdamW(gradientSum, step);
  }

  trainStep(
    parts: readonly TrainingPart[],
    step: AdamWStep,
    rules?: SegmentRules,
    exchange?: GradientExchange,
  ): () => TrainingResult {
    return this.#training.trainStep(parts, step, rules, exchange as DeviceExchange<F> | undefined);
  }

  openExchange(plan: ExchangePlan, options: ExchangeOptions): GradientExchange {
    return this.#training.openExchange(plan, options);
  }

  openReplicas(exchange: GradientExchange): EngineReplicas {
    return this.#training.openReplicas(exchange as DeviceExchange<F>);
  }

  prefill(batch: PromptBatch, states: LaneStates, options?: ForwardOptions): Float32Array {
    return this.#passes.prefill(batch, states, options);
  }

  score(batch: SegmentBatch, states: LaneStates, options?: ForwardOptions): Float32Array {
    return this.#passes.score(batch, states, options);
  }

  close(): void {
    this.#model.device.close();
  }
}
