/**
 * A compute thread for tests: trains a small model on the CPU engine, for a number of steps or until the process ends, and posts a digest
 * of the gradient after its first step.
 */
import { createHash } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import type { ModelSpec } from "@segue/core";
import { createCpuEngine } from "../src/native/index.js";
import { noisyParameters, randomTokens } from "./native-support.js";

export interface WorkerTask {
  readonly steps: number;
  readonly threads: number;
}

const MODEL: ModelSpec = {
  ...{ layers: 2, dModel: 64, dState: 16, headDim: 16, expand: 2, dConv: 4, groups: 1, chunk: 32, vocab: 64, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};

export async function trainFor({ steps, threads }: WorkerTask, report: (digest: string) => void): Promise<void> {
  const engine = await createCpuEngine({ model: MODEL, precision: "f32", threads });
  engine.writeParameters(noisyParameters(MODEL));
  const [lanes, tokens] = [4, 128];
  const batch = {
    ...{ lanes, tokens, tokens_BT: randomTokens("tokens", lanes * tokens, MODEL.vocab) },
    labels_BT: randomTokens("labels", lanes * tokens, MODEL.vocab),
  };
  const states = engine.createStates(lanes);
  const gradient = new Float32Array(engine.layout.size);
  for (let step = 0; step < steps; step++) {
    engine.forwardBackward(batch, states, gradient);
    if (step === 0) report(createHash("sha256").update(gradient).digest("hex"));
    await new Promise(setImmediate);
  }
  engine.close();
}

if (parentPort) {
  const port = parentPort;
  await trainFor(workerData as WorkerTask, (digest) => port.postMessage(digest));
}
