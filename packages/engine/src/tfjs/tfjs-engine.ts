import { laneStateFloats, parameterLayout, type ModelSpec, type ParameterLayout } from "@segue/core";
import type { Scalar, Tensor, Tensor1D, Tensor2D } from "@tensorflow/tfjs";
import type {
  AdamWStep,
  Engine,
  EngineDescription,
  EngineOptions,
  ForwardOptions,
  LaneStates,
  PromptBatch,
  SegmentBatch,
  SegmentRules,
} from "../engine.js";
import { expectLane, expectLength, expectPart, expectPlain, expectSegment } from "../input-checks.js";
import { cutIntoSegments } from "../segments.js";
import { applyAdamW } from "../optimizer/adamw.js";
import { mamba2 } from "./mamba2.js";
import { createOperations, type Operations } from "./operations.js";
import type { Parameters, RecurrentModel, SegmentInput } from "./recurrent-model.js";
import { loadTensorFlow, type TensorFlow, type TensorFlowVariant } from "./tensorflow.js";

/**
 * The engine that differentiates by itself: any {@link RecurrentModel}, here Mamba-2, through TensorFlow.js. It computes in float32
 * whatever `precision` says.
 * @param variants ways of running TensorFlow.js to try, in order; all of a thread's engines share the one last chosen
 * @throws SegueError ENGINE_UNAVAILABLE if none loads
 */
export async function createTfjsEngine(options: EngineOptions, variants?: readonly TensorFlowVariant[]): Promise<Engine> {
  const loaded = await loadTensorFlow(variants);
  const operations = createOperations(loaded);
  return new TfjsEngine(operations, options.model, mamba2(operations, options.model), { name: "tfjs", detail: loaded.detail });
}

interface TfjsStates extends LaneStates {
  /** One tensor per slot of the model, [lanes, ...shape]; empty once freed. */
  tensors: Tensor[];
}

/** Parameters and moments live in ordinary memory, where AdamW runs in plain TypeScript; tensors of them are made when needed. */
class TfjsEngine implements Engine {
  readonly layout: ParameterLayout;
  readonly #tf: TensorFlow;
  readonly #parameters: Float32Array;
  readonly #firstMoment: Float32Array;
  readonly #secondMoment: Float32Array;
  readonly #owned = new Set<TfjsStates>();
  #tensors: Map<string, Tensor> | undefined;

  constructor(
    private readonly operations: Operations,
    readonly model: ModelSpec,
    private readonly network: RecurrentModel,
    readonly description: EngineDescription,
  ) {
    this.#tf = operations.tf;
    this.layout = parameterLayout(model);
    this.#parameters = new Float32Array(this.layout.size);
    this.#firstMoment = new Float32Array(this.layout.size);
    this.#secondMoment = new Float32Array(this.layout.size);
  }

  readParameters(into: Float32Array, offset = 0): void {
    expectPart("parameters", into.length, offset, this.layout.size);
    into.set(this.#parameters.subarray(offset, offset + into.length));
  }

  writeParameters(from: Float32Array, offset?: number): void {
    this.#parameters.set(from, expectPart("parameters", from.length, offset, this.layout.size));
    this.#dropTensors();
  }

  readMoments(first: Float32Array, second: Float32Array, offset?: number): void {
    const begin = expectPart("moments", first.length, offset, this.layout.size);
    expectLength("second moment", second.length, first.length);
    first.set(this.#firstMoment.subarray(begin, begin + first.length));
    second.set(this.#secondMoment.subarray(begin, begin + second.length));
  }

  writeMoments(first: Float32Array, second: Float32Array, offset?: number): void {
    this.#firstMoment.set(first, expectPart("first moment", first.length, offset, this.layout.size));
    this.#secondMoment.set(second, expectPart("second moment", second.length, offset, this.layout.size));
  }

  createStates(lanes: number): LaneStates {
    const tensors = this.network.slots.map(({ shape }) => this.#tf.zeros([lanes, ...shape]));
    const states: TfjsStates = { lanes, tensors };
    this.#owned.add(states);
    return states;
  }

  freeStates(states: LaneStates): void {
    const own = states as TfjsStates;
    this.#tf.dispose(own.tensors);
    own.tensors = [];
    this.#owned.delete(own);
  }

  forkStates(states: LaneStates, lane: number, copies: number): LaneStates {
    expectLane(lane, states);
    const tensors = (states as TfjsStates).tensors.map((tensor) =>
      this.#tf.tidy(() => this.#tf.gather(tensor, Array<number>(copies).fill(lane))),
    );
    const forked: TfjsStates = { lanes: copies, tensors };
    this.#owned.add(forked);
    return forked;
  }

  zeroStates(states: LaneStates, part: "ssm" | "conv"): void {
    const own = states as TfjsStates;
    this.#replace(
      own,
      own.tensors.map((tensor, i) => (this.network.slots[i]?.part === part ? this.#tf.zeros(tensor.shape) : tensor)),
    );
  }

  readStates(states: LaneStates, into: Float32Array): void {
    const { lanes, tensors } = states as TfjsStates;
    const laneFloats = laneStateFloats(this.model);
    let offset = 0;
    for (const tensor of tensors) {
      const size = tensor.size / lanes;
      const values = tensor.dataSync<"float32">();
      for (let lane = 0; lane < lanes; lane++)
        into.set(values.subarray(lane * size, (lane + 1) * size), lane * laneFloats + offset);
      offset += size;
    }
  }

  writeStates(states: LaneStates, from: Float32Array): void {
    const own = states as TfjsStates;
    const laneFloats = laneStateFloats(this.model);
    expectLength("states", from.length, own.lanes * laneFloats);
    let offset = 0;
    const tensors = own.tensors.map((tensor) => {
      const size = tensor.size / own.lanes;
      const values = new Float32Array(tensor.size);
      for (let lane = 0; lane < own.lanes; lane++) {
        const start = lane * laneFloats + offset;
        values.set(from.subarray(start, start + size), lane * size);
      }
      offset += size;
      return this.#tf.tensor(values, tensor.shape);
    });
    this.#replace(own, tensors);
  }

  /** Full gradients hold the intermediate results of all segments: what differentiates by itself computes nothing twice. */
  forwardBackward(batch: SegmentBatch, states: LaneStates, gradient: Float32Array, rules?: SegmentRules): number {
    expectSegment(batch, states, this.model.vocab);
    expectLength("gradient", gradient.length, this.layout.size);
    const segments = cutIntoSegments(batch, rules?.segmentTokens ?? batch.tokens);
    const differentiated = rules?.gradient === "full" ? [segments] : segments.map((segment) => [segment]);
    gradient.fill(0);
    return differentiated.reduce((sum, together) => sum + this.#addGradient(together, states as TfjsStates, gradient, rules), 0);
  }

  /** Differentiates the weighted loss sum of consecutive segments, the states that enter the first taken as constants. */
  #addGradient(
    segments: readonly SegmentBatch[],
    own: TfjsStates,
    gradient: Float32Array,
    rules: SegmentRules | undefined,
  ): number {
    const names = [...this.#parameterTensors().keys()];
    const inputs = [...this.#parameterTensors().values()];
    let next: Tensor[] = [];
    const loss = (...tensors: Tensor[]): Scalar => {
      const parameters = new Map(names.map((name, i) => [name, tensors[i] as Tensor]));
      let running = own.tensors;
      const lossSums = segments.map((batch) => {
        const segment = this.network.forward(parameters, input(batch), this.#carried(running, rules));
        running = segment.states;
        const losses_R = this.operations.crossEntropy(this.network.logits(parameters, segment.hidden_RD), batch.labels_BT);
        return this.#tf.sum<Scalar>(batch.weights_BT ? this.#tf.mul(losses_R, this.#tf.tensor1d(batch.weights_BT)) : losses_R);
      });
      // The states outlive this call; without keep they would go with its intermediate results.
      next = running.map((state) => this.#tf.keep(state));
      return this.#tf.addN(lossSums);
    };
    const { value, grads } = this.#tf.valueAndGrads(loss)(inputs);
    this.layout.entries.forEach(({ offset }, i) => {
      (grads[i] as Tensor).dataSync<"float32">().forEach((g, j) => (gradient[offset + j] = (gradient[offset + j] as number) + g));
    });
    const lossSum = value.dataSync<"float32">()[0] as number;
    this.#tf.dispose([value, ...grads]);
    this.#replace(own, next);
    return lossSum;
  }

  /** The states that a segment starts from: zeros, which pass no gradient on, in place of what is not carried. */
  #carried(states: Tensor[], rules: SegmentRules | undefined): Tensor[] {
    return states.map((tensor, i) => {
      const carried = this.network.slots[i]?.part === "ssm" ? rules?.carrySsm : rules?.carryConv;
      return carried === false ? this.#tf.zeros(tensor.shape) : tensor;
    });
  }

  applyAdamW(gradientSum: Float32Array, step: AdamWStep): number {
    expectLength("gradient", gradientSum.length, this.layout.size);
    this.#dropTensors();
    const vectors = { parameters: this.#parameters, first: this.#firstMoment, second: this.#secondMoment };
    return applyAdamW(vectors, gradientSum, this.layout, step);
  }

  prefill(batch: PromptBatch, states: LaneStates, options?: ForwardOptions): Float32Array {
    expectPlain(options);
    return this.#advance(batch, states, (parameters, hidden_RD) => {
      const hidden_BTD = this.#tf.reshape(hidden_RD, [batch.lanes, batch.tokens, -1]);
      const last = this.#tf.slice(hidden_BTD, [0, batch.tokens - 1, 0], [batch.lanes, 1, -1]);
      return this.network.logits(parameters, this.#tf.reshape(last, [batch.lanes, -1]));
    });
  }

  score(batch: SegmentBatch, states: LaneStates, options?: ForwardOptions): Float32Array {
    expectPlain(options);
    return this.#advance(batch, states, (parameters, hidden_RD) =>
      this.operations.crossEntropy(this.network.logits(parameters, hidden_RD), batch.labels_BT),
    );
  }

  close(): void {
    for (const states of this.#owned) this.freeStates(states);
    this.#dropTensors();
  }

  /** Forward only; replaces the states and returns what `result` makes of the hidden rows. */
  #advance(
    batch: SegmentInput,
    states: LaneStates,
    result: (parameters: Parameters, hidden_RD: Tensor2D) => Tensor1D | Tensor2D,
  ): Float32Array {
    expectSegment(batch, states, this.model.vocab);
    const own = states as TfjsStates;
    const parameters = this.#parameterTensors();
    let next: Tensor[] = [];
    const output = this.#tf.tidy(() => {
      const segment = this.network.forward(parameters, input(batch), own.tensors);
      next = segment.states.map((state) => this.#tf.keep(state));
      return result(parameters, segment.hidden_RD);
    });
    const values = output.dataSync<"float32">();
    output.dispose();
    this.#replace(own, next);
    return values;
  }

  /** Disposes what is not in `tensors` and puts these in its place. */
  #replace(states: TfjsStates, tensors: Tensor[]): void {
    for (const old of states.tensors) if (!tensors.includes(old)) old.dispose();
    states.tensors = tensors;
  }

  #parameterTensors(): Map<string, Tensor> {
    this.#tensors ??= new Map(
      this.layout.entries.map(({ name, shape, offset, size }) => [
        name,
        // A copy, since some backends keep the array they are given.
        this.#tf.tensor(this.#parameters.slice(offset, offset + size), [...shape]),
      ]),
    );
    return this.#tensors;
  }

  #dropTensors(): void {
    if (this.#tensors) this.#tf.dispose([...this.#tensors.values()]);
    this.#tensors = undefined;
  }
}

function input({ lanes, tokens, tokens_BT, resets_BT }: SegmentInput): SegmentInput {
  return { lanes, tokens, tokens_BT, resets_BT };
}
