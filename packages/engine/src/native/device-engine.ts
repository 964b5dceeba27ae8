import {
  laneStateFloats,
  modelWidths,
  parameterLayout,
  SegueError,
  ssmStateFloats,
  type ModelSpec,
  type ParameterLayout,
} from "@segue/core";
import type { Device } from "../devices/device.js";
import type { AdamWStep, Engine, EngineDescription, LaneStates, SegmentBatch } from "../engine.js";
import { Arena, arenaFloats } from "./arena.js";
import { takeBackward, takeForward, type BackwardBuffers, type ForwardBuffers, type Take } from "./buffers.js";
import { backward, forward, type Mamba2, type TokenSegment } from "./mamba2.js";
import { modelTensors, type ModelTensors } from "./parameters.js";

interface Training<F> {
  readonly forward: ForwardBuffers<F>;
  readonly backward: BackwardBuffers<F>;
}

const carveTraining = <F>(model: ModelSpec, lanes: number, tokens: number, take: Take<F>): Training<F> => ({
  forward: takeForward(model, lanes, tokens, true, take),
  backward: takeBackward(model, lanes, tokens, take),
});

/** Floats of the arena that one training step over such a segment needs, beside parameters, gradient, moments and states. */
export function trainingArenaFloats(model: ModelSpec, lanes: number, tokens: number): number {
  return arenaFloats((take) => carveTraining(model, lanes, tokens, take));
}

interface DeviceStates<F> extends LaneStates {
  readonly floats: F;
}

/** Mean, unbiased variance, root mean square and largest magnitude of each head's state. */
export const STATE_STATISTICS = ["mean", "variance", "rms", "largest"] as const;

/** The engine over a {@link Device}: Mamba-2 with a hand-written backward pass. */
export class DeviceEngine<F, I> implements Engine {
  readonly description: EngineDescription;
  readonly model: ModelSpec;
  readonly layout: ParameterLayout;
  readonly #device: Device<F, I>;
  readonly #arena: Arena<F, I>;
  readonly #mamba2: Mamba2<F, I>;
  readonly #parameters: F;
  readonly #gradient: F;
  readonly #firstMoment: F;
  readonly #secondMoment: F;
  readonly #gradients: ModelTensors<F>;
  #ints: { capacity: number; tokens_R: I; labels_R: I; resets_R: I };
  #losses_R = new Float32Array(0);
  #weights_R = new Float32Array(0);

  constructor(name: EngineDescription["name"], device: Device<F, I>, model: ModelSpec) {
    this.description = { name, detail: device.detail };
    this.model = model;
    this.layout = parameterLayout(model);
    this.#device = device;
    this.#arena = new Arena(device);
    this.#parameters = device.floats(this.layout.size);
    this.#gradient = device.floats(this.layout.size);
    this.#firstMoment = device.floats(this.layout.size);
    this.#secondMoment = device.floats(this.layout.size);
    this.#gradients = modelTensors(device, this.layout, model.layers, this.#gradient);
    this.#mamba2 = { device, model, parameters: modelTensors(device, this.layout, model.layers, this.#parameters) };
    this.#ints = this.#intsFor(0);
  }

  readParameters(into: Float32Array): void {
    this.#device.download(this.#parameters, into);
  }

  writeParameters(from: Float32Array): void {
    expectLength("parameters", from.length, this.layout.size);
    this.#device.upload(from, this.#parameters);
  }

  readMoments(first: Float32Array, second: Float32Array): void {
    this.#device.download(this.#firstMoment, first);
    this.#device.download(this.#secondMoment, second);
  }

  writeMoments(first: Float32Array, second: Float32Array): void {
    expectLength("first moment", first.length, this.layout.size);
    expectLength("second moment", second.length, this.layout.size);
    this.#device.upload(first, this.#firstMoment);
    this.#device.upload(second, this.#secondMoment);
  }

  createStates(lanes: number): LaneStates {
    const states: DeviceStates<F> = { lanes, floats: this.#device.floats(lanes * laneStateFloats(this.model)) };
    return states;
  }

  /** Nothing to do: the memory goes with the last reference. */
  freeStates(_states: LaneStates): void {}

  zeroStates(states: LaneStates, part: "ssm" | "conv"): void {
    const laneFloats = laneStateFloats(this.model);
    const ssmFloats = ssmStateFloats(this.model);
    for (let lane = 0; lane < states.lanes; lane++) {
      const [first, length] = part === "ssm" ? [0, ssmFloats] : [ssmFloats, laneFloats - ssmFloats];
      this.#device.fill(this.#device.slice(this.#floatsOf(states), lane * laneFloats + first, length), 0);
    }
  }

  readStates(states: LaneStates, into: Float32Array): void {
    this.#device.download(this.#floatsOf(states), into);
  }

  writeStates(states: LaneStates, from: Float32Array): void {
    expectLength("states", from.length, states.lanes * laneStateFloats(this.model));
    this.#device.upload(from, this.#floatsOf(states));
  }

  /** [lanes, layers, heads, {@link STATE_STATISTICS}] of the SSM states. */
  stateStatistics(states: LaneStates): Float32Array {
    const { lanes } = states;
    const heads = this.model.layers * modelWidths(this.model).heads;
    const out = this.#device.floats(lanes * heads * STATE_STATISTICS.length);
    this.#device.stateStatistics({
      lanes,
      heads,
      size: this.model.headDim * this.model.dState,
      state: { data: this.#floatsOf(states), stride: laneStateFloats(this.model) },
      out,
    });
    const statistics = new Float32Array(lanes * heads * STATE_STATISTICS.length);
    this.#device.download(out, statistics);
    return statistics;
  }

  forwardBackward(batch: SegmentBatch, states: LaneStates, gradient: Float32Array): number {
    const { lanes, tokens } = batch;
    const rows = lanes * tokens;
    expectLength("gradient", gradient.length, this.layout.size);
    const segment = this.#uploadSegment(batch, states);
    const labels_R = this.#uploadLabels(batch);
    const buffers = this.#arena.buffers(`training ${lanes} ${tokens}`, (take) => carveTraining(this.model, lanes, tokens, take));
    const weights_R = batch.weights_BT ?? this.#hostWeights(rows);
    expectLength("weights", weights_R.length, rows);
    this.#device.upload(weights_R, buffers.backward.weights_R);

    forward(this.#mamba2, segment, this.#floatsOf(states), buffers.forward);
    const targets = { labels_R, weights_R: buffers.backward.weights_R, losses_R: buffers.forward.losses_R };
    backward(this.#mamba2, segment, targets, buffers.forward, buffers.backward, this.#gradients);

    this.#device.download(this.#gradient, gradient);
    const losses_R = this.#hostLosses(rows);
    this.#device.download(buffers.forward.losses_R, losses_R);
    let sum = 0;
    for (let r = 0; r < rows; r++) sum += losses_R[r]! * weights_R[r]!;
    return sum;
  }

  applyAdamW(gradientSum: Float32Array, { optimizer, learningRate, step, totalWeight }: AdamWStep): number {
    expectLength("gradient", gradientSum.length, this.layout.size);
    this.#device.upload(gradientSum, this.#gradient);
    const mean = totalWeight > 0 ? 1 / totalWeight : 0;
    const norm = Math.sqrt(this.#device.sumOfSquares(this.#gradient)) * mean;
    const clip = optimizer.clipNorm > 0 && norm > optimizer.clipNorm ? optimizer.clipNorm / norm : 1;
    for (const { offset, size, decay } of this.layout.entries) {
      const part = (flat: F): F => this.#device.slice(flat, offset, size);
      this.#device.adamW({
        parameters: part(this.#parameters),
        gradient: part(this.#gradient),
        firstMoment: part(this.#firstMoment),
        secondMoment: part(this.#secondMoment),
        gradientScale: mean * clip,
        learningRate,
        beta1: optimizer.beta1,
        beta2: optimizer.beta2,
        epsilon: optimizer.epsilon,
        weightDecay: decay ? optimizer.weightDecay : 0,
        step,
      });
    }
    return norm;
  }

  prefill(batch: Pick<SegmentBatch, "lanes" | "tokens" | "tokens_BT" | "resets_BT">, states: LaneStates): Float32Array {
    const { lanes, tokens } = batch;
    const { vocab, dModel } = this.model;
    const segment = this.#uploadSegment(batch, states);
    const buffers = this.#arena.buffers(`prefill ${lanes} ${tokens}`, (take) => ({
      forward: takeForward(this.model, lanes, tokens, false, take),
      last_BD: take(lanes * dModel),
      logits_BV: take(lanes * vocab),
    }));
    const hidden_RD = forward(this.#mamba2, segment, this.#floatsOf(states), buffers.forward);
    const { tokens_R: lastRows_B } = this.#ints;
    this.#device.uploadInts(
      Array.from({ length: lanes }, (_, lane) => (lane + 1) * tokens - 1),
      lastRows_B,
    );
    this.#device.gatherRows({ rows: lanes, width: dModel, table_VD: hidden_RD, ids_R: lastRows_B, rows_RD: buffers.last_BD });
    this.#device.matmul({
      m: lanes,
      n: vocab,
      k: dModel,
      a: buffers.last_BD,
      b: this.#mamba2.parameters.head_VD,
      transposeB: true,
      out: buffers.logits_BV,
    });
    const logits_BV = new Float32Array(lanes * vocab);
    this.#device.download(buffers.logits_BV, logits_BV);
    return logits_BV;
  }

  score(batch: SegmentBatch, states: LaneStates): Float32Array {
    const { lanes, tokens } = batch;
    const segment = this.#uploadSegment(batch, states);
    const labels_R = this.#uploadLabels(batch);
    const buffers = this.#arena.buffers(`score ${lanes} ${tokens}`, (take) => takeForward(this.model, lanes, tokens, false, take));
    const hidden_RD = forward(this.#mamba2, segment, this.#floatsOf(states), buffers);
    this.#device.headLoss({
      rows: lanes * tokens,
      width: this.model.dModel,
      vocab: this.model.vocab,
      hidden_RD,
      table_VD: this.#mamba2.parameters.head_VD,
      labels_R,
      losses_R: buffers.losses_R,
    });
    const losses_BT = new Float32Array(lanes * tokens);
    this.#device.download(buffers.losses_R, losses_BT);
    return losses_BT;
  }

  /** Memory of the activations of the largest segment so far. */
  get arenaBytes(): number {
    return 4 * this.#arena.floats;
  }

  close(): void {
    this.#device.close();
  }

  #floatsOf(states: LaneStates): F {
    return (states as DeviceStates<F>).floats;
  }

  #uploadSegment(batch: Pick<SegmentBatch, "lanes" | "tokens" | "tokens_BT" | "resets_BT">, states: LaneStates): TokenSegment<I> {
    const { lanes, tokens, tokens_BT, resets_BT } = batch;
    const rows = lanes * tokens;
    expectLength("tokens", tokens_BT.length, rows);
    expectLength("lanes of the states", states.lanes, lanes);
    expectTokens("token", tokens_BT, this.model.vocab);
    if (this.#ints.capacity < rows) this.#ints = this.#intsFor(rows);
    this.#device.uploadInts(tokens_BT, this.#ints.tokens_R);
    if (!resets_BT) return { lanes, tokens, tokens_R: this.#ints.tokens_R };
    expectLength("resets", resets_BT.length, rows);
    this.#device.uploadInts(resets_BT, this.#ints.resets_R);
    return { lanes, tokens, tokens_R: this.#ints.tokens_R, resets_R: this.#ints.resets_R };
  }

  #uploadLabels({ labels_BT, lanes, tokens }: SegmentBatch): I {
    expectLength("labels", labels_BT.length, lanes * tokens);
    expectTokens("label", labels_BT, this.model.vocab);
    this.#device.uploadInts(labels_BT, this.#ints.labels_R);
    return this.#ints.labels_R;
  }

  #intsFor(rows: number): { capacity: number; tokens_R: I; labels_R: I; resets_R: I } {
    const ints = (): I => this.#device.ints(rows);
    return { capacity: rows, tokens_R: ints(), labels_R: ints(), resets_R: ints() };
  }

  #hostLosses(rows: number): Float32Array {
    if (this.#losses_R.length !== rows) this.#losses_R = new Float32Array(rows);
    return this.#losses_R;
  }

  #hostWeights(rows: number): Float32Array {
    if (this.#weights_R.length !== rows) this.#weights_R = new Float32Array(rows).fill(1);
    return this.#weights_R;
  }
}

function expectLength(what: string, actual: number, expected: number): void {
  if (actual === expected) return;
  throw new SegueError("ENGINE_INPUT_INVALID", `${what}: expected ${expected}, got ${actual}`);
}

/** A kernel would read past its tables. */
function expectTokens(what: string, ids: Int32Array, vocab: number): void {
  const wrong = ids.find((id) => id < 0 || id >= vocab);
  if (wrong === undefined) return;
  throw new SegueError("ENGINE_INPUT_INVALID", `${what} ${wrong} is outside the vocabulary of ${vocab}`);
}
