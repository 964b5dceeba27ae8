import { setFloats, stretches, type PagedFloats } from "@segue/core";
import type { Engine, EngineReplicas, OuterSettings } from "@segue/engine";

/** A page of what an outer step keeps: u, and theta_0 with the moments beside it. */
interface OuterPage {
  readonly offset: number;
  readonly momentum: Float32Array;
  readonly weights: Float32Array;
  readonly first: Float32Array;
  readonly second: Float32Array;
}

/**
 * DiLoCo's outer step (arXiv 2311.08105, algorithm 1): replicas start from the same weights theta_0 and train apart; with D the mean of
 * theta_0 - theta_r over the replicas r, Nesterov SGD makes u = mu u + D, theta = theta_0 - lr (D + mu u). AdamW's moments become the mean
 * of the replicas', so that between outer steps there is one state for all, whoever holds which replica.
 */
export class OuterStep {
  readonly #engine: Engine;
  readonly #pages: readonly OuterPage[];

  /** @param momentum u, f32 [P]; copied */
  constructor(engine: Engine, momentum: PagedFloats) {
    this.#engine = engine;
    this.#pages = Array.from(stretches(momentum), ({ offset, floats }) => {
      const zeros = (): Float32Array => new Float32Array(floats.length);
      return { offset, momentum: floats.slice(), weights: zeros(), first: zeros(), second: zeros() };
    });
  }

  readMomentum(into: PagedFloats): void {
    for (const { offset, momentum } of this.#pages) setFloats(into, momentum, offset);
  }

  /** Hands u over to an engine that makes outer steps by itself. */
  giveMomentum(to: EngineReplicas): void {
    for (const { offset, momentum } of this.#pages) to.writeMomentum(momentum, offset);
  }

  /** Before a replica's inner steps: the first one's start is kept, every other one starts there too. */
  begin(isFirst: boolean): void {
    for (const { offset, weights, first, second } of this.#pages) {
      if (isFirst) {
        this.#engine.readParameters(weights, offset);
        this.#engine.readMoments(first, second, offset);
      } else {
        this.#engine.writeParameters(weights, offset);
        this.#engine.writeMoments(first, second, offset);
      }
    }
  }

  /** After a replica's inner steps: `into`, f32 [3, P], becomes theta_0 - theta_r and the moments. */
  end(into: Float32Array): void {
    for (const { offset, weights: base } of this.#pages) {
      const { weights, first, second } = this.#parts(into, offset, base.length);
      this.#engine.readParameters(weights, offset);
      this.#engine.readMoments(first, second, offset);
      for (let i = 0; i < base.length; i++) weights[i] = (base[i] as number) - (weights[i] as number);
    }
  }

  /** Applies the outer step to the sum over all replicas of what {@link end} gave, f32 [3, P], which is overwritten. */
  apply(sum: Float32Array, { replicas, learningRate, momentum }: OuterSettings): void {
    for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) / replicas;
    for (const { offset, weights: base, momentum: u } of this.#pages) {
      const { weights: mean, first, second } = this.#parts(sum, offset, base.length);
      for (let i = 0; i < base.length; i++) {
        const change = mean[i] as number;
        u[i] = momentum * (u[i] as number) + change;
        mean[i] = (base[i] as number) - learningRate * (change + momentum * (u[i] as number));
      }
      this.#engine.writeParameters(mean, offset);
      this.#engine.writeMoments(first, second, offset);
    }
  }

  /** The same part of each of the three vectors. */
  #parts(vectors: Float32Array, offset: number, length: number): Pick<OuterPage, "weights" | "first" | "second"> {
    const part = (vector: number): Float32Array => {
      const begin = vector * this.#engine.layout.size + offset;
      return vectors.subarray(begin, begin + length);
    };
    return { weights: part(0), first: part(1), second: part(2) };
  }
}
