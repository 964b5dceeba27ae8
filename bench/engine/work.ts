import { DEFAULT_SPEC } from "@segue/core";
import type { Engine } from "@segue/engine";
import { someParameters, type Size } from "./sizes.js";

/** Shortest time of one call, in seconds, over about `seconds` of calls: other work on the machine only ever adds. */
export function fastest(seconds: number, call: () => void): number {
  call();
  let best = Infinity;
  const end = performance.now() + 1000 * seconds;
  do {
    const start = performance.now();
    call();
    best = Math.min(best, (performance.now() - start) / 1000);
  } while (performance.now() < end);
  return best;
}

/** One piece of the size's work, to be called again and again. */
export function workOn(engine: Engine, { model, lanes, tokens, work }: Size): () => void {
  engine.writeParameters(someParameters(model));
  const states = engine.createStates(lanes);
  const rows = lanes * tokens;
  const tokens_BT = Int32Array.from({ length: rows }, (_, i) => (i * 7919) % model.vocab);
  const labels_BT = Int32Array.from({ length: rows }, (_, i) => ((i + 1) * 7919) % model.vocab);
  const batch = { lanes, tokens, tokens_BT, labels_BT };
  if (work === "score") return () => void engine.score(batch, states);
  if (work === "decode") return () => void engine.prefill(batch, states);
  const gradient = new Float32Array(engine.layout.size);
  let step = 0;
  return () => {
    engine.forwardBackward(batch, states, gradient);
    engine.applyAdamW(gradient, { optimizer: DEFAULT_SPEC.optimizer, learningRate: 1e-4, step: ++step, totalWeight: rows });
  };
}
