import type { Engine } from "@segue/engine";

/** What an outer step is made from; P parameters. */
export interface OuterSettings {
  readonly replicas: number;
  readonly learningRate: number;
  readonly momentum: number;
}

/**
 * DiLoCo's outer step (arXiv 2311.08105, algorithm 1): replicas start from the same weights theta_0 and train apart; with D the mean of
 * theta_0 - theta_r over the replicas r, Nesterov SGD makes u = mu u + D, theta = theta_0 - lr (D + mu u). AdamW's moments become the mean
 * of the replicas', so that between outer steps there is one state for all, whoever holds which replica.
 */
export class OuterStep {
  readonly #engine: Engine;
  readonly #size: number;
  /** u, f32 [P]. */
  readonly momentum: Float32Array;
  /** theta_0 and the moments beside it, f32 [3, P]. */
  readonly #base: Float32Array;

  constructor(engine: Engine) {
    this.#engine = engine;
    this.#size = engine.layout.size;
    this.momentum = new Float32Array(this.#size);
    this.#base = new Float32Array(3 * this.#size);
  }

  /** Before a replica's inner steps: the first one's start is kept, every other one starts there too. */
  begin(isFirst: boolean): void {
    const { weights, first, second } = this.#parts(this.#base);
    if (isFirst) {
      this.#engine.readParameters(weights);
      this.#engine.readMoments(first, second);
    } else {
      this.#engine.writeParameters(weights);
      this.#engine.writeMoments(first, second);
    }
  }

  /** After a replica's inner steps: `into`, f32 [3, P], becomes theta_0 - theta_r and the moments. */
  end(into: Float32Array): void {
    const { weights, first, second } = this.#parts(into);
    this.#engine.readParameters(weights);
    this.#engine.readMoments(first, second);
    for (let i = 0; i < this.#size; i++) weights[i] = (this.#base[i] as number) - (weights[i] as number);
  }

  /** Applies the outer step to the sum over all replicas of what {@link end} gave, f32 [3, P], which is overwritten. */
  apply(sum: Float32Array, { replicas, learningRate, momentum }: OuterSettings): void {
    for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) / replicas;
    const { weights: mean, first, second } = this.#parts(sum);
    const u = this.momentum;
    for (let i = 0; i < this.#size; i++) {
      const change = mean[i] as number;
      u[i] = momentum * (u[i] as number) + change;
      mean[i] = (this.#base[i] as number) - learningRate * (change + momentum * (u[i] as number));
    }
    this.#engine.writeParameters(mean);
    this.#engine.writeMoments(first, second);
  }

  #parts(vectors: Float32Array): { weights: Float32Array; first: Float32Array; second: Float32Array } {
    const size = this.#size;
    return {
      weights: vectors.subarray(0, size),
      first: vectors.subarray(size, 2 * size),
      second: vectors.subarray(2 * size, 3 * size),
    };
  }
}
