import { setTimeout as sleep } from "node:timers/promises";
import { parameterLayout, SegueError, type ModelSpec } from "@segue/core";
import type { AdamWStep, Engine, EngineOptions, EngineSnapshot, LaneStates, TrainingResult } from "@segue/engine";
import { serveCompute } from "../../src/compute/serve.js";

/** The step with this number fails while the device computes it. */
export const FAILING_STEP = 5;

/** A device that goes on by itself: of every step it tells how many had been begun when its end was waited for. */
class DeviceEngine {
  readonly description = { name: "cuda", detail: "fake" } as const;
  readonly model: ModelSpec;
  readonly layout;
  readonly worksAhead = true;
  #begun = 0;

  constructor({ model }: EngineOptions) {
    this.model = model;
    this.layout = parameterLayout(model);
  }

  createStates(lanes: number): LaneStates {
    return { lanes };
  }
  freeStates(): void {}
  writeStates(): void {}
  writeParameters(): void {}
  writeMoments(): void {}
  snapshot({ parameters }: EngineSnapshot): () => void {
    const begun = this.#begun;
    return () => parameters.forEach(({ floats }) => floats.fill(begun));
  }
  close(): void {}

  trainStep(_parts: unknown, { step }: AdamWStep): () => TrainingResult {
    this.#begun++;
    return () => {
      if (step === FAILING_STEP) throw new SegueError("ENGINE_OUT_OF_MEMORY", "no room for the segment");
      return { lossSums: [this.#begun], gradientNorm: step, exchangeMs: 0 };
    };
  }
}

serveCompute({
  availableEngines: async (_threads, ordinal) => {
    await sleep(200);
    const uuid = `GPU-00000000-0000-0000-0000-00000000000${ordinal}`;
    return [{ name: "cuda", detail: "fake", gpu: { name: "Fake GPU", uuid, memoryBytes: 140 * 2 ** 30, ordinal, visible: 2 } }];
  },
  createEngine: async (_choice, options) => new DeviceEngine(options) as unknown as Engine,
  drawParameters: () => undefined,
});
