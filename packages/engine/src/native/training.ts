import { SegueError, splitPoint, type ReductionNode } from "@segue/core";
import type { ClippedAdamWArgs, Copying, Device } from "../devices/device.js";
import type {
  AdamWStep,
  EngineSnapshot,
  FloatStretch,
  LaneStates,
  SegmentBatch,
  SegmentRules,
  TrainingPart,
  TrainingResult,
} from "../engine.js";
import { expectLength, expectPart, expectSegment } from "../input-checks.js";
import type { DeviceExchange, DeviceSlices } from "../exchange/device-exchange.js";
import { exchangeUnavailable, type ExchangeOptions, type ExchangePlan } from "../exchange/gradient-exchange.js";
import { SharedExchange } from "../exchange/shared-exchange.js";
import { cutIntoSegments } from "../segments.js";
import { mostEconomies } from "./buffers.js";
import type { DeviceModel } from "./device-model.js";
import { floatsOf } from "./lane-states.js";
import { backward, forward, type TokenSegment } from "./mamba2.js";
import { modelTensors, type ModelTensors } from "./parameters.js";
import { Replicas } from "./replicas.js";
import { fullPasses, truncatedPasses, zeroStatePart, type SegmentPasses } from "./tbptt.js";
import { carveTraining, trainingArenaFloats, type TrainingBuffers, type TrainingShape } from "./training-buffers.js";

/** A flat vector of gradients and its views. */
interface Gradients<F> {
  readonly flat: F;
  readonly tensors: ModelTensors<F>;
}

/** AdamW's moments of the floats that this engine steps: all, or where members step a slice each, the own one. */
interface HeldMoments<F> {
  readonly begin: number;
  readonly end: number;
  readonly first: F;
  readonly second: F;
  /** Of the layout, as far as they are held; offsets from `begin`. */
  readonly entries: ClippedAdamWArgs<F>["entries"];
}

/** Gradients of a model and its AdamW steps, for {@link DeviceEngine}. */
export class Training<F, I> {
  readonly #model: DeviceModel<F, I>;
  readonly #device: Device<F, I>;
  readonly #gradients: Gradients<F>;
  /** The gradients of one of several segments, until they are added up. */
  #addend: Gradients<F> | undefined;
  #moments: HeldMoments<F> | undefined;
  /** Sums of right subtrees of the reduction tree. */
  readonly #rightOfDepth: Gradients<F>[] = [];
  /** Of the last snapshot. */
  #copying: Copying | undefined;
  #statesCopy: { readonly floats: F; readonly length: number } | undefined;
  #losses_R = new Float32Array(0);
  #weights_R = new Float32Array(0);

  constructor(model: DeviceModel<F, I>) {
    this.#model = model;
    this.#device = model.device;
    this.#gradients = this.#newGradients();
  }

  /** Drops the moments and holds those of floats [begin, end) from now on, zero; what is held already stays as it is. */
  holdMoments(begin: number, end: number): void {
    const held = this.#moments;
    if (held?.begin === begin && held.end === end) return;
    expectPart("moments", end - begin, begin, this.#model.layout.size);
    this.#settleCopies();
    this.#moments = undefined;
    for (const moment of held ? [held.first, held.second] : []) this.#device.free?.(moment);
    const { entries, size } = this.#model.layout;
    // Of nothing there is no memory to be had on a GPU.
    const length = Math.max(1, end - begin);
    const [first, second] = [this.#device.floats(length), this.#device.floats(length)];
    this.#moments = { begin, end, first, second, entries: end - begin === size ? entries : entriesWithin(entries, begin, end) };
  }

  readMoments(first: Float32Array, second: Float32Array, offset?: number): void {
    this.#device.download(this.#momentPart(this.#held.first, "first moment", first, offset), first);
    this.#device.download(this.#momentPart(this.#held.second, "second moment", second, offset), second);
  }

  writeMoments(first: Float32Array, second: Float32Array, offset?: number): void {
    this.#device.upload(first, this.#momentPart(this.#held.first, "first moment", first, offset));
    this.#device.upload(second, this.#momentPart(this.#held.second, "second moment", second, offset));
  }

  get #held(): HeldMoments<F> {
    if (!this.#moments) this.holdMoments(0, this.#model.layout.size);
    return this.#moments!;
  }

  #momentPart(vector: F, what: string, { length }: Float32Array, offset: number | undefined): F {
    const { begin, end } = this.#held;
    const at = expectPart(what, length, offset, this.#model.layout.size) - begin;
    expectPart(`${what} of the slice from ${begin} on`, length, at, end - begin);
    return this.#device.slice(vector, at, length);
  }

  forwardBackward(batch: SegmentBatch, states: LaneStates, gradient: Float32Array, rules?: SegmentRules): number {
    expectLength("gradient", gradient.length, this.#model.layout.size);
    const lossSum = this.#addGradients(batch, states, rules, this.#gradients);
    this.#device.download(this.#gradients.flat, gradient);
    return lossSum();
  }

  /** @returns waits for the copies */
  snapshot({ parameters, firstMoment, secondMoment, states }: EngineSnapshot): () => void {
    const device = this.#device;
    const copiesOf = (vector: F, stretches: readonly FloatStretch[], begin = 0): { from: F; to: Float32Array }[] =>
      stretches.map(({ floats, offset }) => ({ from: device.slice(vector, offset - begin, floats.length), to: floats }));
    const { begin, first, second } = this.#held;
    const copies = [
      ...copiesOf(this.#model.parameters, parameters),
      ...copiesOf(first, firstMoment, begin),
      ...copiesOf(second, secondMoment, begin),
    ];
    if (!device.copyOut) {
      for (const { from, to } of copies) device.download(from, to);
      for (const { states: held, into } of states) device.download(floatsOf<F>(held), into);
      return () => undefined;
    }
    // The next forward pass already changes states; weights and moments wait for the optimizer.
    const total = states.reduce((sum, { into }) => sum + into.length, 0);
    if (this.#statesCopy?.length !== total) {
      if (this.#statesCopy) device.free?.(this.#statesCopy.floats);
      this.#statesCopy = undefined;
      this.#statesCopy = { floats: device.floats(total), length: total };
    }
    let offset = 0;
    for (const { states: held, into } of states) {
      const copy = device.slice(this.#statesCopy.floats, offset, into.length);
      device.copy(floatsOf<F>(held), copy);
      copies.push({ from: copy, to: into });
      offset += into.length;
    }
    const copying = device.copyOut(copies);
    this.#copying = copying;
    return () => copying.wait();
  }

  trainStep(
    parts: readonly TrainingPart[],
    step: AdamWStep,
    rules?: SegmentRules,
    exchange?: DeviceExchange<F>,
  ): () => TrainingResult {
    const lossSums: (() => number)[] = [];
    const sumOf = (node: ReductionNode, into: Gradients<F>): void =>
      this.#sumOver(node, 0, into, (index, gradients) => {
        const { batch, states } = parts[index]!;
        lossSums.push(this.#addGradients(batch, states, rules, gradients));
      });
    if (!exchange) sumOf({ lo: 0, hi: parts.length }, this.#gradients);
    const reduceMs = exchange && this.#exchange(exchange, sumOf);
    const slices = exchange?.slices;
    const squaresMs = slices && this.#timed(() => this.#gatherSquares(slices, exchange.total));
    const gradientNorm = this.#descend(step, exchange?.total ?? this.#gradients.flat, slices?.squares);
    const weightsMs = slices && this.#timed(() => slices.gatherWeights(this.#model.parameters));
    return () => ({
      lossSums: lossSums.map((lossSum) => lossSum()),
      gradientNorm: gradientNorm(),
      exchangeMs: (reduceMs?.() ?? 0) + (squaresMs?.() ?? 0) + (weightsMs?.() ?? 0),
    });
  }

  /** Opens an exchange of gradients with other members. @throws SegueError EXCHANGE_UNAVAILABLE */
  openExchange(plan: ExchangePlan, options: ExchangeOptions): DeviceExchange<F> {
    const { sharing, detail } = this.#device;
    const length = (plan.vectors ?? 1) * this.#model.layout.size;
    if (plan.sharded) this.#expectSlices(plan);
    if (plan.transport === "ipc" && sharing) return new SharedExchange(this.#device, sharing, length, plan, options);
    if (plan.transport === "nccl" && this.#device.openLibraryExchange)
      return this.#device.openLibraryExchange(length, plan, options);
    throw exchangeUnavailable(`${detail} does not exchange gradients by ${plan.transport}`);
  }

  openReplicas(exchange: DeviceExchange<F>): Replicas<F, I> {
    const { parameters, layout } = this.#model;
    const { begin, end, first, second } = this.#held;
    expectLength("moments held", end - begin, layout.size);
    const trained = { parameters, firstMoment: first, secondMoment: second };
    return new Replicas(this.#device, trained, layout.size, exchange);
  }

  /** Makes the sums of own nodes, then those of all in `exchange.total`. @returns how long the second took, once it is over */
  #exchange(exchange: DeviceExchange<F>, sumOf: (node: ReductionNode, into: Gradients<F>) => void): () => number {
    exchange.begin();
    let first = 0;
    for (const [index, { lo, hi }] of exchange.ownNodes.entries()) {
      sumOf({ lo: first, hi: first + hi - lo }, this.#viewsOf(exchange.nodes[index]!));
      first += hi - lo;
    }
    return this.#timed(() => exchange.reduce());
  }

  /** The own slice's squares are computed, and everybody's brought together. */
  #gatherSquares(slices: DeviceSlices<F>, total: F): void {
    const { begin, end, ownSquares } = slices;
    if (end > begin) this.#device.squaresOfBlocks(this.#device.slice(total, begin, end - begin), ownSquares);
    slices.gatherSquares();
  }

  /** @throws RangeError where other moments are held than those of the own slice */
  #expectSlices({ members, self }: ExchangePlan): void {
    const { begin, end } = members[self]!;
    const held = this.#held;
    if (held.begin === begin && held.end === end) return;
    throw new RangeError(`moments of [${held.begin}, ${held.end}) for the slice [${begin}, ${end})`);
  }

  /** @returns how long the device took for what it was asked, once it is over */
  #timed(ask: () => void): () => number {
    const { sharing } = this.#device;
    const before = sharing?.mark();
    ask();
    const after = sharing?.mark();
    return () => (sharing && before !== undefined && after !== undefined ? sharing.elapsedMs(before, after) : 0);
  }

  #viewsOf(flat: F): Gradients<F> {
    return { flat, tensors: modelTensors(this.#device, this.#model.layout, this.#model.spec.layers, flat) };
  }

  /** Leaves the gradients of the batch's segments in `into`. @returns the loss sum, once it is there */
  #addGradients(batch: SegmentBatch, states: LaneStates, rules: SegmentRules | undefined, into: Gradients<F>): () => number {
    const { lanes } = batch;
    expectSegment(batch, states, this.#model.spec.vocab);
    const segments = cutIntoSegments(batch, rules?.segmentTokens ?? batch.tokens);
    const chained = rules?.gradient === "full" ? segments.length : 1;
    const startSegment = (floats: F): void => {
      if (rules?.carrySsm === false) zeroStatePart(this.#device, this.#model.spec, floats, lanes, "ssm");
      if (rules?.carryConv === false) zeroStatePart(this.#device, this.#model.spec, floats, lanes, "conv");
    };
    const { passes, lossSum } = this.#trainingPasses(segments, chained, into);
    // First what is always needed: buffers can be fewer.
    if (segments.length > 1) this.#addend ??= this.#newGradients();
    const { chain } = this.#trainingBuffers(segments[0]!, chained);
    if (chain && rules) fullPasses(this.#device, passes, floatsOf<F>(states), startSegment, rules, chain);
    else truncatedPasses(passes, floatsOf<F>(states), startSegment);
    return lossSum;
  }

  /** Adds the gradients of a node's shards in the order of the reduction tree. */
  #sumOver(node: ReductionNode, depth: number, into: Gradients<F>, gradientOf: (shard: number, into: Gradients<F>) => void): void {
    const split = splitPoint(node);
    if (split === undefined) return gradientOf(node.lo, into);
    const right = (this.#rightOfDepth[depth] ??= this.#newGradients());
    this.#sumOver({ lo: node.lo, hi: split }, depth + 1, into, gradientOf);
    this.#sumOver({ lo: split, hi: node.hi }, depth + 1, right, gradientOf);
    this.#device.add(right.flat, into.flat);
  }

  applyAdamW(gradientSum: Float32Array, step: AdamWStep): number {
    expectLength("gradient", gradientSum.length, this.#model.layout.size);
    this.#device.upload(gradientSum, this.#gradients.flat);
    return this.#descend(step, this.#gradients.flat)();
  }

  /** What is copied out may change from now on. */
  #settleCopies(): void {
    this.#copying?.fence();
    this.#copying = undefined;
  }

  /**
   * One AdamW step of the floats whose moments are held.
   * @param squares of the whole gradient, where `gradient` has the held slice alone
   * @returns the mean gradient's norm, once it is there
   */
  #descend({ optimizer, learningRate, step, totalWeight }: AdamWStep, gradient: F, squares?: F): () => number {
    const { beta1, beta2, epsilon, weightDecay, clipNorm } = optimizer;
    this.#settleCopies();
    const { begin, end, first, second, entries } = this.#held;
    if (!squares) expectLength("moments held", end - begin, this.#model.layout.size);
    const mean = totalWeight > 0 ? 1 / totalWeight : 0;
    const own = (whole: F): F => this.#device.slice(whole, begin, end - begin);
    const flat = { parameters: own(this.#model.parameters), gradient: own(gradient), firstMoment: first, secondMoment: second };
    const rates = { learningRate, beta1, beta2, epsilon, weightDecay, step };
    if (this.#device.clippedAdamW) {
      const squared = this.#device.clippedAdamW({
        ...flat,
        ...rates,
        gradientScale: mean,
        clipNorm,
        entries,
        squares,
      });
      return () => Math.sqrt(squared()) * mean;
    }
    const squared = squares ? this.#device.sumOfBlocks(squares) : this.#device.sumOfSquares(flat.gradient);
    const norm = Math.sqrt(squared) * mean;
    const clip = clipNorm > 0 && norm > clipNorm ? clipNorm / norm : 1;
    for (const { offset, size, decay } of entries) {
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

  /** Passes that leave the sum of the segments' gradients in `into`. */
  #trainingPasses(
    segments: readonly SegmentBatch[],
    chained: number,
    into: Gradients<F>,
  ): { passes: SegmentPasses<F>; lossSum: () => number } {
    const segmentLosses: (() => number)[] = [];
    let isFirst = true;
    let current: { segment: TokenSegment<I>; buffers: TrainingBuffers<F>; weights_R: Float32Array } | undefined;
    const passes: SegmentPasses<F> = {
      count: segments.length,
      forward: (index, floats) => {
        const batch = segments[index]!;
        const buffers = this.#trainingBuffers(batch, chained);
        const segment = this.#model.uploadSegment(batch);
        const weights_R = batch.weights_BT ?? this.#hostWeights(batch.lanes * batch.tokens);
        this.#device.upload(weights_R, buffers.backward.weights_R);
        this.#model.replay(
          `forward ${chained}`,
          segment,
          [floats],
          () => void forward(this.#model.mamba2, segment, floats, buffers.forward),
        );
        current = { segment, buffers, weights_R };
      },
      backward: (index, stateGradients) => {
        const { segment, buffers, weights_R } = current!;
        const labels_R = this.#model.uploadLabels(segments[index]!);
        const { flat, tensors } = isFirst ? into : (this.#addend ??= this.#newGradients());
        const targets = { labels_R, weights_R: buffers.backward.weights_R, losses_R: buffers.forward.losses_R };
        const through = (["ssm", "taps"] as const).filter((part) => stateGradients?.[part] !== undefined);
        const memory = [flat, ...through.map((part) => stateGradients![part]!)];
        this.#model.replay(`backward ${chained} through ${through.join(" and ")}`, segment, memory, () =>
          backward(this.#model.mamba2, segment, targets, buffers.forward, buffers.backward, tensors, stateGradients),
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

  /** @throws SegueError DEVICE_OUT_OF_MEMORY that says what would fit */
  #trainingBuffers({ lanes, tokens }: Pick<SegmentBatch, "lanes" | "tokens">, chained: number): TrainingBuffers<F> {
    const shape = { model: this.#model.spec, lanes, tokens, chained };
    const key = `training ${lanes} ${tokens} ${chained} ${this.#device.economies}`;
    const { arena, spec } = this.#model;
    // First what is always needed: buffers can be fewer.
    void this.#held;
    try {
      this.#device.reserve?.(spec, lanes, tokens);
      return arena.buffers(key, (take) => carveTraining(shape, take, this.#device));
    } catch (failure) {
      if (!(failure instanceof SegueError && failure.code === "DEVICE_OUT_OF_MEMORY")) throw failure;
      const held = arena.floats;
      arena.release();
      if (held > 0 || this.#economises(shape)) return this.#trainingBuffers(shape, chained);
      this.#device.unreserve?.();
      const free = this.#device.freeBytes?.() ?? 0;
      const fits = (count: number): boolean =>
        4 * trainingArenaFloats(spec, count, tokens, chained, this.#device) +
          (this.#device.reservedBytes?.(spec, count, tokens) ?? 0) <=
        free;
      let most = lanes;
      while (most > 0 && !fits(most)) most--;
      const advice = most > 0 ? `about ${most} lanes a shard would fit` : "shorter segments or a smaller model would fit";
      throw new SegueError(failure.code, `${lanes} lanes of ${tokens} tokens: ${failure.message}; ${advice}`, {
        status: "RESOURCE_EXHAUSTED",
        cause: failure,
      });
    }
  }

  /** Makes as few further economies as leave room for the buffers. @returns false if none is left */
  #economises({ model, lanes, tokens, chained }: TrainingShape): boolean {
    const device = this.#device;
    if (!device.economise || device.economies === undefined || device.economies >= mostEconomies(model)) return false;
    const free = device.freeBytes?.() ?? 0;
    const fits = (economies: number): boolean =>
      4 * trainingArenaFloats(model, lanes, tokens, chained, { ...device, economies }) <= free;
    let economies = device.economies + 1;
    while (economies < mostEconomies(model) && !fits(economies)) economies++;
    device.economise(economies);
    return true;
  }

  #newGradients(): Gradients<F> {
    return this.#viewsOf(this.#device.floats(this.#model.layout.size));
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

function entriesWithin(entries: HeldMoments<unknown>["entries"], begin: number, end: number): HeldMoments<unknown>["entries"] {
  return entries.flatMap(({ offset, size, decay }) => {
    const [first, last] = [Math.max(offset, begin), Math.min(offset + size, end)];
    return first < last ? [{ offset: first - begin, size: last - first, decay }] : [];
  });
}
