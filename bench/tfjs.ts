/**
 * Tokens per second of the tfjs engine: whole steps (forward, backward, clipping, AdamW) of a small model.
 * Run: npx tsx --conditions=segue-source bench/tfjs.ts [steps]
 */
import { DEFAULT_SPEC, type ModelSpec } from "@segue/core";
import { createEngine, initialParameters } from "@segue/engine";

const model: ModelSpec = {
  layers: 2,
  dModel: 128,
  dState: 32,
  headDim: 32,
  expand: 2,
  dConv: 4,
  groups: 1,
  chunk: 64,
  vocab: 256,
  padVocabMultiple: 16,
  tieEmbeddings: true,
  rmsEps: 1e-5,
};
const lanes = 8;
const tokens = 256;
const steps = Number(process.argv[2] ?? 5);

const engine = await createEngine("tfjs", { model, precision: "f32", threads: 1 });
engine.writeParameters(initialParameters(model, 1));
const states = engine.createStates(lanes);
const gradient = new Float32Array(engine.layout.size);
const rows = lanes * tokens;
const batch = {
  lanes,
  tokens,
  tokens_BT: Int32Array.from({ length: rows }, (_, i) => (i * 7919) % model.vocab),
  labels_BT: Int32Array.from({ length: rows }, (_, i) => ((i + 1) * 7919) % model.vocab),
};
const milliseconds: number[] = [];
for (let step = 0; step <= steps; step++) {
  const start = performance.now();
  engine.forwardBackward(batch, states, gradient);
  engine.applyAdamW(gradient, { optimizer: DEFAULT_SPEC.optimizer, learningRate: 1e-3, step: step + 1, totalWeight: rows });
  // The first step compiles.
  if (step > 0) milliseconds.push(performance.now() - start);
}
engine.close();
milliseconds.sort((a, b) => a - b);
const median = milliseconds[Math.floor(milliseconds.length / 2)] ?? NaN;
console.log(
  `${engine.description.detail}: ${Math.round((rows / median) * 1000)} tokens/s, ${median.toFixed(0)} ms per step of ${rows} tokens`,
);
