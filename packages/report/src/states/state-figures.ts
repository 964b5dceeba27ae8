import type { Course, Figure } from "../figure.js";
import { formatTokens } from "../chart/numbers.js";
import { figureId } from "../figure-id.js";
import type { HeadQuantity, StateTrace } from "./state-trace.js";

/** As many heads as the paper shows of a layer; of layers, as many as there are colours. */
const SHOWN = 8;

/**
 * The paper's figures of a model's states along one text: mean and variance of the heads with the largest variance and of the layers with the
 * largest mean variance, convolution taps, retention of the heads that keep most, what enters them, and the channels of the largest head.
 * @param name tells these figures from those of another trace
 */
export function stateFigures(trace: StateTrace, name: string, trainTokens: number | undefined): Figure[] {
  const { tokens, layers, heads } = trace;
  const all = Array.from({ length: layers * heads }, (_, index) => index);
  const headName = (index: number): string => `layer ${Math.floor(index / heads)} head ${index % heads}`;
  const courses = (quantity: HeadQuantity, of: readonly number[]): Course[] =>
    of.map((index) => ({ name: headName(index), values: trace.head(quantity, index) }));
  const of = name === "" ? "" : `: ${name}`;
  const common = { tokens, ...(trainTokens !== undefined && { trainTokens }) };

  const largest = most(all, (index) => trace.head("ssm.variance", index).at(-1));
  const figures: Figure[] = [
    {
      kind: "stateMoments",
      id: figureId("states-heads", name),
      title: `Mean and variance of heads${of}`,
      caption: `The ${largest.length} heads with the largest variance of their state at the end of the text, of ${all.length}.`,
      ...common,
      means: courses("ssm.mean", largest),
      variances: courses("ssm.variance", largest),
    },
  ];
  if (layers > 1) {
    const [means, variances] = (["ssm.mean", "ssm.variance"] as const).map((quantity) => layerCourses(trace, quantity));
    figures.push({
      kind: "stateMoments",
      id: figureId("states-layers", name),
      title: `Mean and variance by layer${of}`,
      caption: `Means over the heads of a layer. ${shownLayers(layers)}`,
      ...common,
      ...largestLayers(means!, variances!),
    });
  }
  const conv = (quantity: "conv.mean" | "conv.variance"): Course[] =>
    Array.from({ length: layers }, (_, layer) => ({ name: `layer ${layer}`, values: trace.conv(quantity, layer) }));
  figures.push({
    kind: "stateMoments",
    id: figureId("states-conv", name),
    title: `Mean and variance of the convolution taps${of}`,
    caption: `Inputs of the last three tokens, which the state holds as well. ${shownLayers(layers)}`,
    ...common,
    ...largestLayers(conv("conv.mean"), conv("conv.variance")),
  });
  if (trace.hasInputs) {
    const trained = Math.max(
      0,
      tokens.findLastIndex((token) => trainTokens === undefined || token <= trainTokens),
    );
    const keeping = most(all, (index) => trace.head("input.retention", index)[trained]);
    const at = formatTokens(tokens[trained] ?? 0);
    figures.push(
      {
        kind: "retention",
        id: figureId("states-retention", name),
        title: `What is left of the first token${of}`,
        caption: `The product of all decays so far, for the ${keeping.length} heads that keep most of it at ${at} tokens.`,
        ...common,
        heads: courses("input.retention", keeping),
      },
      {
        kind: "headInputs",
        id: figureId("states-inputs", name),
        title: `What enters the recurrence${of}`,
        caption: "Mean time step, and root mean square sizes of B and x since the sample before, for the same heads.",
        ...common,
        dt: courses("input.dt", keeping),
        b: courses("input.b", keeping),
        x: courses("input.x", keeping),
      },
    );
  }
  const [worst = 0] = largest;
  const places = trace.histograms(worst);
  if (places.length > 0) {
    figures.push({
      kind: "channelHistogram",
      id: figureId("states-channels", name),
      title: `Channels of ${headName(worst)}${of}`,
      caption: "How many numbers of the state of the head with the largest variance have which value. The floor is none.",
      places,
    });
  }
  return figures;
}

function layerCourses(trace: StateTrace, quantity: "ssm.mean" | "ssm.variance"): Course[] {
  return Array.from({ length: trace.layers }, (_, layer) => {
    const courses = Array.from({ length: trace.heads }, (_head, head) => trace.head(quantity, layer * trace.heads + head));
    const values = trace.tokens.map((_token, sample) => {
      const sum = courses.reduce((total, course) => total + (course[sample] ?? NaN), 0);
      return Number.isFinite(sum) ? sum / trace.heads : null;
    });
    return { name: `layer ${layer}`, values };
  });
}

function largestLayers(means: readonly Course[], variances: readonly Course[]): { means: Course[]; variances: Course[] } {
  const shown = most([...variances.keys()], (layer) => variances[layer]?.values.at(-1)).sort((a, b) => a - b);
  return { means: shown.map((layer) => means[layer]!), variances: shown.map((layer) => variances[layer]!) };
}

function shownLayers(layers: number): string {
  return layers > SHOWN ? `The ${SHOWN} layers with the largest variance at the end, of ${layers}.` : "All layers.";
}

/** The few with the most; what is no number, as after an overflow, counts as most of all. */
function most(indices: readonly number[], value: (index: number) => number | null | undefined): number[] {
  const ranked = indices.map((index) => ({ index, value: value(index) ?? Infinity }));
  ranked.sort((a, b) => (a.value === b.value ? a.index - b.index : b.value - a.value));
  return ranked.slice(0, SHOWN).map(({ index }) => index);
}
