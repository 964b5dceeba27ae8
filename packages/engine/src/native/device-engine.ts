import { laneStateFloats, modelWidths, parameterLayout, type ModelSpec, type ParameterLayout } from "@segue/core";
import type { Device } from "../devices/device.js";
import type { AdamWStep, Engine, EngineDescription, LaneStates, SegmentBatch, SegmentRules } from "../engine.js";
import { expectLength, expectSegment, expectTokens } from "../input-checks.js";
import { cutIntoSegments } from "../segments.js";
import { Arena, arenaFloats } from "./arena.js";
import { takeBackward, takeForward, type BackwardBuffers, type ForwardBuffers, type Take } from "./buffers.js";
import { backward, forward, type Mamba2, type TokenSegment } from "./mamba2.js";
import { modelTensors, type ModelTensors } from "./parameters.js";
import { fullPasses, takeChain, truncatedPasses, zeroStatePart, type ChainBuffers, type SegmentPasses } from "./tbptt.js";

interface Training<F> {
  /** Of gradients that flow through several segments. */
  readonly chain: ChainBuffers<F> | undefined;
  readonly forward: ForwardBuffers<F>;
  readonly backward: BackwardBuffers<F>;
}

/** The chain's buffers come first: a last segment that is shorter finds them where the others left them. */
const carveTraining = <F>(model: ModelSpec, lanes: number, tokens: number, chained: number, take: Take<F>): Training<F> => ({
  chain: chained > 1 ? takeChain(model, lanes, chained, take) : undefined,
  forward: takeForward(model, lanes, tokens, true, take),
  backward: takeBackward(model, lanes, tokens, take),
});

/**
 * Floats of the arena that one training step over segments of `tokens` tokens a lane needs, beside parameters, gradient, moments and
 * states.
 * @param chained segments that gradients flow through
 */
export function trainingArenaFloats(model: ModelSpec, lanes: number, tokens: number, chained = 1): number {
  return arenaFloats((take) => carveTraining(model, lanes, tokens, chained, take));
}

/** A flat vector of gradients and its views. */
interface Gradients<F> {
  readonly flat: F;
  readonly tensors: ModelTensors<F>;
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
  readonly #gradients: Gradients<F>;
  /** The gradients of one of several segments, until they are added up. */
  #addend: Gradients<F> | undefined;
  readonly #firstMoment: F;
  readonly #secondMoment: F;
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
    this.#firstMoment = device.floats(this.layout.size);
    this.#secondMoment = device.floats(this.layout.size);
    this.#gradients = this.#newGradients();
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
    zeroStatePart(this.#device, this.model, this.#floatsOf(states), states.lanes, part);
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

  forwardBackward(batch: SegmentBatch, states: LaneStates, gradient: Float32Array, rules?: SegmentRules): number {
    const { lanes } = batch;
    expectSegment(batch, states, this.model.vocab);
    expectLength("gradient", gradient.length, this.layout.size);
    const segments = cutIntoSegments(batch, rules?.segmentTokens ?? batch.tokens);
    const chained = rules?.gradient === "full" ? segments.length : 1;
    const startSegment = (floats: F): void => {
      if (rules?.carrySsm === false) zeroStatePart(this.#device, this.model, floats, lanes, "ssm");
      if (rules?.carryConv === false) zeroStatePart(this.#device, this.model, floats, lanes, "conv");
    };
    const step = this.#trainingPasses(segments, states, chained);
    const { chain } = this.#trainingBuffers(segments[0]!, chained);
    if (chain && rules) fullPasses(this.#device, step.passes, this.#floatsOf(states), startSegment, rules, chain);
    else truncatedPasses(step.passes, this.#floatsOf(states), startSegment);
    this.#device.download(this.#gradients.flat, gradient);
    return step.lossSum();
  }

  applyAdamW(gradientSum: Float32Array, { optimizer, learningRate, step, totalWeight }: AdamWStep): number {
    expectLength("gradient", gradientSum.length, this.layout.size);
    this.#device.upload(gradientSum, this.#gradients.flat);
    const mean = totalWeight > 0 ? 1 / totalWeight : 0;
    const norm = Math.sqrt(this.#device.sumOfSquares(this.#gradients.flat)) * mean;
    const clip = optimizer.clipNorm > 0 && norm > optimizer.clipNorm ? optimizer.clipNorm / norm : 1;
    for (const { offset, size, decay } of this.layout.entries) {
      const part = (flat: F): F => this.#device.slice(flat, offset, size);
      this.#device.adamW({
        parameters: part(this.#parameters),
        gradient: part(this.#gradients.flat),
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

  /** Passes that leave the sum of the segments' gradients in `#gradients`. */
  #trainingPasses(
    segments: readonly SegmentBatch[],
    states: LaneStates,
    chained: number,
  ): { passes: SegmentPasses<F>; lossSum: () => number } {
    let lossSum = 0;
    let isFirst = true;
    let current: { segment: TokenSegment<I>; buffers: Training<F>; weights_R: Float32Array } | undefined;
    const passes: SegmentPasses<F> = {
      count: segments.length,
      forward: (index, floats) => {
        const batch = segments[index]!;
        const buffers = this.#trainingBuffers(batch, chained);
        const segment = this.#uploadSegment(batch, states);
        const weights_R = batch.weights_BT ?? this.#hostWeights(batch.lanes * batch.tokens);
        this.#device.upload(weights_R, buffers.backward.weights_R);
        forward(this.#mamba2, segment, floats, buffers.forward);
        current = { segment, buffers, weights_R };
      },
      backward: (index, stateGradients) => {
        const { segment, buffers, weights_R } = current!;
        const labels_R = this.#uploadLabels(segments[index]!);
        const { flat, tensors } = isFirst ? this.#gradients : (this.#addend ??= this.#newGradients());
        const targets = { labels_R, weights_R: buffers.backward.weights_R, losses_R: buffers.forward.losses_R };
        backward(this.#mamba2, segment, targets, buffers.forward, buffers.backward, tensors, stateGradients);
        if (!isFirst) this.#device.add(flat, this.#gradients.flat);
        isFirst = false;
        const losses_R = this.#hostLosses(weights_R.length);
        this.#device.download(buffers.forward.losses_R, losses_R);
        for (let r = 0; r < losses_R.length; r++) lossSum += losses_R[r]! * weights_R[r]!;
      },
    };
    return { passes, lossSum: () => lossSum };
  }

  #trainingBuffers({ lanes, tokens }: Pick<SegmentBatch, "lanes" | "tokens">, chained: number): Training<F> {
    const key = `training ${lanes} ${tokens} ${chained}`;
    return this.#arena.buffers(key, (take) => carveTraining(this.model, lanes, tokens, chained, take));
  }

  #newGradients(): Gradients<F> {
    const flat = this.#device.floats(this.layout.size);
    return { flat, tensors: modelTensors(this.#device, this.layout, this.model.layers, flat) };
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
