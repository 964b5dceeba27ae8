import { modelWidths } from "@segue/core";
import type { Engine } from "./engine.js";

/** A = -exp(A_log) of every layer and head, [layers, heads]. */
export function decayRates(engine: Pick<Engine, "layout" | "readParameters" | "model">): Float64Array {
  const { heads } = modelWidths(engine.model);
  const entries = engine.layout.entries.filter(({ name }) => name.endsWith("A_log"));
  const rates_LH = new Float64Array(entries.length * heads);
  entries.forEach(({ offset, size }, layer) => {
    const log_H = new Float32Array(size);
    engine.readParameters(log_H, offset);
    log_H.forEach((log, head) => (rates_LH[layer * heads + head] = -Math.exp(log)));
  });
  return rates_LH;
}
