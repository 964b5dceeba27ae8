import {
  laneStateFloats,
  modelWidths,
  parameterLayout,
  SegueError,
  splitPoint,
  type ModelSpec,
  type ParameterLayout,
  type ReductionNode,
} from "@segue/core";
import type { Device } from "../devices/device.js";
import type {
  AdamWStep,
  Engine,
  EngineDescription,
  ForwardOptions,
  LaneStates,
  PromptBatch,
  SegmentBatch,
  SegmentRules,
  TrainingPart,
  TrainingResult,
} from "../engine.js";
import { expectLane, expectLength, expectSegment } from "../input-checks.js";
import { cutIntoSegments } from "../segments.js";
import { Arena, arenaFloats } from "./arena.js";
import { takeBackward, takeForward, type BackwardBuffers, type ForwardBuffers, type Recomputes, type Take } from "./buffers.js";
import { backward, forward, momentFloats, type Mamba2, type TokenSegment } from "./mamba2.js";
import { fillMoments, takeMoments } from "./moments.js";
import { modelTensors, type ModelTensors } from "./parameters.js";
import { fullPasses, takeChain, truncatedPasses, zeroStatePart, type ChainBuffers, type SegmentPasses } from "./tbptt.js";

interface Training<F> {
  /** Of gradients that flow through several segments. */
  readonly chain: ChainBuffers<F> | undefined;
  readonly forward: ForwardBuffers<F>;
  readonly backward: BackwardBuffers<F>;
}

interface TrainingShape {
  readonly model: ModelSpec;
  readonly lanes: number;
  /** Per lane and segment. */
  readonly tokens: number;
  /** Segments that gradients flow through. */
  readonly chained: number;
}

/** The chain's buffers come first: a last segment that is shorter finds them where the others left them. */
const carveTraining = <F>(shape: TrainingShape, take: Take<F>, recomputes: Recomputes): Training<F> => {
  const { model, lanes, tokens, chained } = shape;
  return {
    chain: chained > 1 ? takeChain(model, lanes, chained, take) : undefined,
    forward: takeForward(model, lanes, tokens, true, take, recomputes),
    backward: takeBackward(model, lanes, tokens, take, recomputes),
  };
};

/**
 * Floats of the arena that one training step over segments of `tokens` tokens a lane needs, beside parameters, gradient, moments and
 * states.
 * @param chained segments that gradients flow through
 * @param device absent: one that keeps everything in float32
 */
export function trainingArenaFloats(
  model: ModelSpec,
  lanes: number,
  tokens: number,
  chained = 1,
  device: Pick<Device<never, never>, "bufferFloats"> & Recomputes = {},
): number {
  return arenaFloats((take) => carveTraining({ model, lanes, tokens, chained }, take, device), device);
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
  /** Sums of right subtrees of the reduction tree. */
  readonly #rightOfDepth: Gradients<F>[] = [];
  #ints: { capacity: number; tokens_R: I; labels_R: I; resets_R: I };
  #losses_R = new Float32Array(0);
  #weights_R = new Float32Array(0);

  /** Of devices with memory of their own. */
  get prefersWholeSteps(): boolean {
    return this.#device.downloadLater !== undefined;
  }

  constructor(name: EngineDescription["name"], device: Device<F, I>, model: ModelSpec) {
    this.description = { name, detail: device.detail };
    this.model = model;
    this.layout = parameterLayout(model);
    this.#device = device;
    this.#arena = new Arena(device);
    this.#parameters = device.floats(this.layout.size, "mirrored");
    this.#firstMoment = device.floats(this.layout.size);
    this.#secondMoment = device.floats(this.layout.size);
    this.#gradients = this.#newGradients();
    this.#mamba2 = { device, model, parameters: modelTensors(device, this.layout, model.layers, this.#parameters) };
    this.#ints = this.#intsFor(0);
  }

  readParameters(into: Float32Array, offset = 0): void {
    this.#device.download(this.#device.slice(this.#parameters, offset, into.length), into);
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

  freeStates(states: LaneStates): void {
    this.#device.free?.(this.#floatsOf(states));
  }

  forkStates(states: LaneStates, lane: number, copies: number): LaneStates {
    expectLane(lane, states);
    const floats = laneStateFloats(this.model);
    const part = (of: F, index: number): F => this.#device.slice(of, index * floats, floats);
    const forked = this.createStates(copies);
    for (let copy = 0; copy < copies; copy++)
      this.#device.copy(part(this.#floatsOf(states), lane), part(this.#floatsOf(forked), copy));
    return forked;
  }

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

  mixStates(into: LaneStates, from: LaneStates, factors_BLH: Float32Array, accumulate: boolean): void {
    const { lanes } = into;
    const heads = this.model.layers * modelWidths(this.model).heads;
    expectLength("lanes of the states", from.lanes, lanes);
    expectLength("factors", factors_BLH.length, lanes * heads);
    const factors_BH = this.#arena.buffers(`mix ${lanes}`, (take) => take(lanes * heads));
    this.#device.upload(factors_BLH, factors_BH);
    const parts = (of: LaneStates) => ({ data: this.#floatsOf(of), stride: laneStateFloats(this.model) });
    const size = this.model.headDim * this.model.dState;
    this.#device.mixHeads({ lanes, heads, size, factors_BH, from: parts(from), state: parts(into), accumulate });
  }

  headNorms(states: LaneStates): Float32Array {
    const statistics = this.stateStatistics(states);
    const rms = STATE_STATISTICS.indexOf("rms");
    const rootSize = Math.sqrt(this.model.headDim * this.model.dState);
    return Float32Array.from(
      { length: statistics.length / STATE_STATISTICS.length },
      (_, head) => statistics[head * STATE_STATISTICS.length + rms]! * rootSize,
    );
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
    this.#device.free?.(out);
    return statistics;
  }

  forwardBackward(batch: SegmentBatch, states: LaneStates, gradient: Float32Array, rules?: SegmentRules): number {
    expectLength("gradient", gradient.length, this.layout.size);
    const lossSum = this.#addGradients(batch, states, rules, this.#gradients);
    this.#device.download(this.#gradients.flat, gradient);
    return lossSum();
  }

  trainStep(parts: readonly TrainingPart[], step: AdamWStep, rules?: SegmentRules): () => TrainingResult {
    const lossSums: (() => number)[] = [];
    this.#sumOver({ lo: 0, hi: parts.length }, 0, (index, into) => {
      const { batch, states } = parts[index]!;
      lossSums.push(this.#addGradients(batch, states, rules, into));
    });
    const gradientNorm = this.#descend(step);
    return () => ({ lossSums: lossSums.map((lossSum) => lossSum()), gradientNorm: gradientNorm() });
  }

  /** Leaves the gradients of the batch's segments in `into`. @returns the loss sum, once it is there */
  #addGradients(batch: SegmentBatch, states: LaneStates, rules: SegmentRules | undefined, into: Gradients<F>): () => number {
    const { lanes } = batch;
    expectSegment(batch, states, this.model.vocab);
    const segments = cutIntoSegments(batch, rules?.segmentTokens ?? batch.tokens);
    const chained = rules?.gradient === "full" ? segments.length : 1;
    const startSegment = (floats: F): void => {
      if (rules?.carrySsm === false) zeroStatePart(this.#device, this.model, floats, lanes, "ssm");
      if (rules?.carryConv === false) zeroStatePart(this.#device, this.model, floats, lanes, "conv");
    };
    const { passes, lossSum } = this.#trainingPasses(segments, chained, into);
    const { chain } = this.#trainingBuffers(segments[0]!, chained);
    if (chain && rules) fullPasses(this.#device, passes, this.#floatsOf(states), startSegment, rules, chain);
    else truncatedPasses(passes, this.#floatsOf(states), startSegment);
    return lossSum;
  }

  /** Adds the gradients of shards in the order of the reduction tree; the sum of shard 0 on is in `#gradients`. */
  #sumOver(
    node: ReductionNode,
    depth: number,
    gradientOf: (shard: number, into: Gradients<F>) => void,
    into = this.#gradients,
  ): void {
    const split = splitPoint(node);
    if (split === undefined) return gradientOf(node.lo, into);
    this.#sumOver({ lo: node.lo, hi: split }, depth + 1, gradientOf, into);
    const right = (this.#rightOfDepth[depth] ??= this.#newGradients());
    this.#sumOver({ lo: split, hi: node.hi }, depth + 1, gradientOf, right);
    this.#device.add(right.flat, into.flat);
  }

  applyAdamW(gradientSum: Float32Array, step: AdamWStep): number {
    expectLength("gradient", gradientSum.length, this.layout.size);
    this.#device.upload(gradientSum, this.#gradients.flat);
    return this.#descend(step)();
  }

  /** One AdamW step by `#gradients`. @returns the mean gradient's norm, once it is there */
  #descend({ optimizer, learningRate, step, totalWeight }: AdamWStep): () => number {
    const { beta1, beta2, epsilon, weightDecay, clipNorm } = optimizer;
    const mean = totalWeight > 0 ? 1 / totalWeight : 0;
    const flat = {
      parameters: this.#parameters,
      gradient: this.#gradients.flat,
      firstMoment: this.#firstMoment,
      secondMoment: this.#secondMoment,
    };
    const rates = { learningRate, beta1, beta2, epsilon, weightDecay, step };
    if (this.#device.clippedAdamW) {
      const squared = this.#device.clippedAdamW({ ...flat, ...rates, gradientScale: mean, clipNorm, entries: this.layout.entries });
      return () => Math.sqrt(squared()) * mean;
    }
    const norm = Math.sqrt(this.#device.sumOfSquares(flat.gradient)) * mean;
    const clip = clipNorm > 0 && norm > clipNorm ? clipNorm / norm : 1;
    for (const { offset, size, decay } of this.layout.entries) {
      const part = (whole: F): F => this.#device.slice(whole, offset, size);
      this.#device.adamW({
        parameters: part(flat.parameters),
        gradient: part(flat.gradient),
        firstMoment: part(flat.firstMoment),
        secondMoment: part(flat.secondMoment),
        ...rates,
        gradientScale: mean * clip,
        weightDecay: decay ? weightDecay : 0,
      });
    }
    return () => norm;
  }

  prefill(batch: PromptBatch, states: LaneStates, options: ForwardOptions = {}): Float32Array {
    const { lanes, tokens } = batch;
    const { vocab, dModel } = this.model;
    expectSegment(batch, states, vocab);
    const segment = this.#uploadSegment(batch);
    const buffers = this.#arena.buffers(`prefill ${lanes} ${tokens}`, (take) => ({
      forward: takeForward(this.model, lanes, tokens, false, take),
      last_BD: take(lanes * dModel, "activation"),
      logits_BV: take(lanes * vocab),
      moments: takeMoments(this.model, lanes, take),
    }));
    const hidden_RD = this.#infer("prefill", segment, states, buffers, options);
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
    this.#readMoments(buffers.moments, lanes, options);
    return logits_BV;
  }

  score(batch: SegmentBatch, states: LaneStates, options: ForwardOptions = {}): Float32Array {
    const { lanes, tokens } = batch;
    expectSegment(batch, states, this.model.vocab);
    const segment = this.#uploadSegment(batch);
    const labels_R = this.#uploadLabels(batch);
    const buffers = this.#arena.buffers(`score ${lanes} ${tokens}`, (take) => ({
      forward: takeForward(this.model, lanes, tokens, false, take),
      moments: takeMoments(this.model, lanes, take),
    }));
    const hidden_RD = this.#infer("score", segment, states, buffers, options);
    this.#device.headLoss({
      rows: lanes * tokens,
      width: this.model.dModel,
      vocab: this.model.vocab,
      hidden_RD,
      table_VD: this.#mamba2.parameters.head_VD,
      labels_R,
      losses_R: buffers.forward.losses_R,
    });
    const losses_BT = new Float32Array(lanes * tokens);
    this.#device.download(buffers.forward.losses_R, losses_BT);
    this.#readMoments(buffers.moments, lanes, options);
    return losses_BT;
  }

  /** Memory of the activations of the largest segment so far. */
  get arenaBytes(): number {
    return 4 * this.#arena.floats;
  }

  close(): void {
    this.#device.close();
  }

  /** Passes that leave the sum of the segments' gradients in `into`. */
  #trainingPasses(
    segments: readonly SegmentBatch[],
    chained: number,
    into: Gradients<F>,
  ): { passes: SegmentPasses<F>; lossSum: () => number } {
    const segmentLosses: (() => number)[] = [];
    let isFirst = true;
    let current: { segment: TokenSegment<I>; buffers: Training<F>; weights_R: Float32Array } | undefined;
    const passes: SegmentPasses<F> = {
      count: segments.length,
      forward: (index, floats) => {
        const batch = segments[index]!;
        const buffers = this.#trainingBuffers(batch, chained);
        const segment = this.#uploadSegment(batch);
        const weights_R = batch.weights_BT ?? this.#hostWeights(batch.lanes * batch.tokens);
        this.#device.upload(weights_R, buffers.backward.weights_R);
        this.#replayForward(`forward ${chained}`, segment, floats, buffers.forward);
        current = { segment, buffers, weights_R };
      },
      backward: (index, stateGradients) => {
        const { segment, buffers, weights_R } = current!;
        const labels_R = this.#uploadLabels(segments[index]!);
        const { flat, tensors } = isFirst ? into : (this.#addend ??= this.#newGradients());
        const targets = { labels_R, weights_R: buffers.backward.weights_R, losses_R: buffers.forward.losses_R };
        const through = (["ssm", "taps"] as const).filter((part) => stateGradients?.[part] !== undefined);
        const memory = [flat, ...through.map((part) => stateGradients![part]!)];
        this.#replay(`backward ${chained} through ${through.join(" and ")}`, segment, memory, () =>
          backward(this.#mamba2, segment, targets, buffers.forward, buffers.backward, tensors, stateGradients),
        );
        if (!isFirst) this.#device.add(flat, into.flat);
        isFirst = false;
        segmentLosses.push(this.#weightedSum(buffers.forward.losses_R, Float32Array.from(weights_R)));
      },
    };
    return { passes, lossSum: () => segmentLosses.reduce((sum, loss) => sum + loss(), 0) };
  }

  /** The sum of losses times weights, once it is there. */
  #weightedSum(losses_R: F, weights_R: Float32Array): () => number {
    const rows = weights_R.length;
    const host_R = this.#device.downloadLater ? new Float32Array(rows) : this.#hostLosses(rows);
    const total = (): number => host_R.reduce((sum, loss, r) => sum + loss * weights_R[r]!, 0);
    const arrived = this.#device.downloadLater?.(losses_R, host_R);
    if (arrived) return () => (arrived(), total());
    this.#device.download(losses_R, host_R);
    const sum = total();
    return () => sum;
  }

  /** @returns the normed output of the last block */
  #infer(
    key: string,
    segment: TokenSegment<I>,
    states: LaneStates,
    buffers: { readonly forward: ForwardBuffers<F>; readonly moments: F },
    { recurrence, moments }: ForwardOptions,
  ): F {
    const inference = { recurrence, moments: moments && buffers.moments };
    const cured = recurrence ? ` ${recurrence.logRetention} ${recurrence.insertion} ${recurrence.dtScale}` : "";
    const floats = this.#floatsOf(states);
    this.#replay(
      `${key}${cured}${moments ? " moments" : ""}`,
      segment,
      [floats],
      () => void forward(this.#mamba2, segment, floats, buffers.forward, inference),
    );
    return buffers.forward.normed_RD;
  }

  #readMoments(moments: F, lanes: number, options: ForwardOptions): void {
    if (!options.moments) return;
    const sums = new Float32Array(lanes * this.model.layers * momentFloats(this.model));
    this.#device.download(moments, sums);
    fillMoments(this.model, sums, options.moments);
  }

  /** @returns the normed output of the last block */
  #replayForward(key: string, segment: TokenSegment<I>, states: F, buffers: ForwardBuffers<F>): F {
    this.#replay(key, segment, [states], () => void forward(this.#mamba2, segment, states, buffers));
    return buffers.normed_RD;
  }

  /** Work on the segment's tokens that is the same whenever key, shape and memory are. */
  #replay(key: string, { lanes, tokens, tokens_R, resets_R }: TokenSegment<I>, memory: readonly F[], work: () => void): void {
    if (!this.#device.replay) return work();
    const ints = resets_R === undefined ? [tokens_R] : [tokens_R, resets_R];
    this.#device.replay(`${key} ${lanes} ${tokens} ${this.#device.recomputesLayers}`, [...memory, ...ints], work);
  }

  /** @throws SegueError DEVICE_OUT_OF_MEMORY that says what would fit */
  #trainingBuffers({ lanes, tokens }: Pick<SegmentBatch, "lanes" | "tokens">, chained: number): Training<F> {
    const shape = { model: this.model, lanes, tokens, chained };
    const key = `training ${lanes} ${tokens} ${chained} ${this.#device.recomputesLayers}`;
    try {
      return this.#arena.buffers(key, (take) => carveTraining(shape, take, this.#device));
    } catch (failure) {
      if (!(failure instanceof SegueError && failure.code === "DEVICE_OUT_OF_MEMORY")) throw failure;
      if (this.#device.economise?.()) return this.#trainingBuffers(shape, chained);
      const free = this.#device.freeBytes?.() ?? 0;
      const fits = (count: number): boolean => 4 * trainingArenaFloats(this.model, count, tokens, chained, this.#device) <= free;
      let most = lanes;
      while (most > 0 && !fits(most)) most--;
      const advice = most > 0 ? `about ${most} lanes a shard would fit` : "shorter segments or a smaller model would fit";
      throw new SegueError(failure.code, `${lanes} lanes of ${tokens} tokens: ${failure.message}; ${advice}`, {
        status: "RESOURCE_EXHAUSTED",
        cause: failure,
      });
    }
  }

  #newGradients(): Gradients<F> {
    const flat = this.#device.floats(this.layout.size);
    return { flat, tensors: modelTensors(this.#device, this.layout, this.model.layers, flat) };
  }

  #floatsOf(states: LaneStates): F {
    return (states as DeviceStates<F>).floats;
  }

  #uploadSegment({ lanes, tokens, tokens_BT, resets_BT }: Omit<SegmentBatch, "labels_BT">): TokenSegment<I> {
    const rows = lanes * tokens;
    if (this.#ints.capacity < rows) {
      const { tokens_R, labels_R, resets_R } = this.#ints;
      // Nothing is held should there be no memory for more.
      this.#ints = this.#intsFor(0);
      for (const ints of [tokens_R, labels_R, resets_R]) this.#device.freeInts?.(ints);
      this.#ints = this.#intsFor(rows);
    }
    this.#device.uploadInts(tokens_BT, this.#ints.tokens_R);
    if (!resets_BT) return { lanes, tokens, tokens_R: this.#ints.tokens_R };
    this.#device.uploadInts(resets_BT, this.#ints.resets_R);
    return { lanes, tokens, tokens_R: this.#ints.tokens_R, resets_R: this.#ints.resets_R };
  }

  #uploadLabels({ labels_BT }: SegmentBatch): I {
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
