import {
  modelWidths,
  onePage,
  parameterLayout,
  randomStream,
  stretches,
  type ModelSpec,
  type PagedFloats,
  type ParameterEntry,
  type Random,
} from "@segue/core";

/** Steps dt of a new model are drawn log-uniformly from this range, but never below the floor (paper.md 7.4). */
const DT_MIN = 1e-3;
const DT_MAX = 0.1;
const DT_FLOOR = 1e-4;

/**
 * Fills `into`, [P], with the parameters of a new model, as the official code draws them (paper.md 7.4). Each tensor has a random stream of
 * its own, named after it, so the result depends on seed and model only, not on engine, pages, order or platform.
 */
export function drawParameters(model: ModelSpec, seed: number, into: PagedFloats): void {
  for (const entry of parameterLayout(model).entries) {
    const draw = initialiser(model, entry, randomStream(seed, "parameters", entry.name));
    for (const { floats } of stretches(into, entry.offset, entry.offset + entry.size)) {
      for (let i = 0; i < floats.length; i++) floats[i] = draw();
    }
  }
}

/** {@link drawParameters} of a model that fits into one array. */
export function initialParameters(model: ModelSpec, seed: number): Float32Array {
  const flat = new Float32Array(parameterLayout(model).size);
  drawParameters(model, seed, onePage(flat));
  return flat;
}

/** How one element of a tensor is drawn. */
function initialiser(model: ModelSpec, { name }: ParameterEntry, random: Random): () => number {
  const uniform = (bound: number) => () => bound * (2 * random.uniform() - 1);
  // Uniform weights are bounded by one over the root of their inputs: PyTorch's default for linear layers and convolutions.
  switch (name.replace(/^.*\.mixer\./, "")) {
    case "backbone.embeddings.weight":
      return () => 0.02 * random.normal();
    case "in_proj.weight":
    case "lm_head.weight":
      return uniform(1 / Math.sqrt(model.dModel));
    case "conv1d.weight":
    case "conv1d.bias":
      return uniform(1 / Math.sqrt(model.dConv));
    case "out_proj.weight":
      // One residual addition per layer: the sum keeps its variance whatever the depth.
      return uniform(1 / Math.sqrt(modelWidths(model).dInner * model.layers));
    case "dt_bias":
      return () => {
        const dt = Math.max(Math.exp(Math.log(DT_MIN) + random.uniform() * Math.log(DT_MAX / DT_MIN)), DT_FLOOR);
        return dt + Math.log(-Math.expm1(-dt));
      };
    case "A_log":
      return () => Math.log(1 + 15 * random.uniform());
    default:
      // D and the weights of all norms.
      return () => 1;
  }
}
