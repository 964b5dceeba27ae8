import type { AdamWArgs, ClippedAdamWArgs } from "../devices/device.js";
import type { Address } from "./driver.js";
import type { CudaFloats } from "./floats.js";
import type { CudaOperations } from "./operations.js";
import type { Scratch } from "./scratch.js";

/** Room for the fields of `AdamW` in `cuda/adamw.cu`; what follows it is aligned. */
const SETTINGS_BYTES = 64;
const THREADS = 256;
const ELEMENTS_PER_THREAD = 4;

/** AdamW in one pass over parameters, gradient and moments. */
export class Optimizer {
  readonly #operations: CudaOperations;
  readonly #scratch: Scratch;
  readonly #edgesOf = new WeakMap<object, BigInt64Array>();

  constructor(operations: CudaOperations, scratch: Scratch) {
    this.#operations = operations;
    this.#scratch = scratch;
  }

  step(args: AdamWArgs<CudaFloats>): void {
    this.#launch(args, 0, BigInt64Array.of(0n, BigInt(args.parameters.length)), 0);
  }

  clippedStep(args: ClippedAdamWArgs<CudaFloats>): () => number {
    let edges = this.#edgesOf.get(args.entries);
    if (!edges) this.#edgesOf.set(args.entries, (edges = decayEdges(args.entries)));
    const { gradient, squares } = args;
    const squaredNorm = squares
      ? this.#operations.sumOfBlocks(squares.f32, squares.length / 2)
      : this.#operations.squaredNorm(gradient);
    this.#launch(args, args.clipNorm, edges, squaredNorm);
    const sum = new Float64Array(1);
    const arrived = this.#operations.runtime.downloadLater(squaredNorm, sum);
    return () => (arrived(), sum[0]!);
  }

  #launch(args: AdamWArgs<CudaFloats>, clipNorm: number, edges: BigInt64Array, squaredNorm: Address): void {
    const { parameters, gradient, firstMoment, secondMoment, gradientScale, learningRate, beta1, beta2, epsilon, weightDecay } =
      args;
    // A member without a slice.
    if (parameters.length === 0) return;
    const correction = (beta: number): number => 1 / (1 - beta ** args.step);
    const settings = new Uint8Array(SETTINGS_BYTES + edges.byteLength);
    const fields = [
      gradientScale,
      clipNorm,
      learningRate,
      beta1,
      beta2,
      epsilon,
      weightDecay,
      correction(beta1),
      correction(beta2),
      1 - beta1,
      1 - beta2,
    ];
    new Float32Array(settings.buffer).set(fields);
    settings.set(new Uint8Array(edges.buffer), SETTINGS_BYTES);
    const at = this.#scratch.take("adamw", settings.length);
    this.#operations.runtime.upload(settings, at);
    this.#operations.launch(
      "adamw",
      { grid: [Math.ceil(parameters.length / (THREADS * ELEMENTS_PER_THREAD))], block: [THREADS] },
      ...[parameters.length, at, squaredNorm, edges.length, at + SETTINGS_BYTES],
      ...[gradient.f32, parameters.f32, firstMoment.f32, secondMoment.f32, parameters.bf16],
    );
  }
}

/** Where decay begins and ends, in turns. */
function decayEdges(entries: ClippedAdamWArgs<unknown>["entries"]): BigInt64Array {
  const edges: number[] = [];
  for (const { offset, size, decay } of entries) {
    if (!decay) continue;
    if (edges.at(-1) === offset) edges.pop();
    else edges.push(offset);
    edges.push(offset + size);
  }
  return BigInt64Array.from(edges, BigInt);
}
