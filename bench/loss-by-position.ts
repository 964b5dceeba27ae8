/**
 * How fast the evaluator's loss by position is, beside the engine's bare speed in the same run. A prompt is one lane: what work there is
 * to share between cores lies in its tokens and heads.
 *
 *     npm run bench:loss -- [--tokens 1048576] [--threads 0] [--engine cpu] [--prompt newlines] [--segments 512,1024,2048,4096]
 *
 * The model is the one of 3.8M parameters of docs/performance.md (d_model 256, 8 layers), initialised. Bare: `score` of the same segment again
 * and again, the state carried, between the segments of the evaluation, so that other work on the machine slows both; medians of the
 * single passes are compared. `--segments` are lengths of segments whose bare speeds are told beside each other, taken in turn.
 */
import { parseArgs } from "node:util";
import { byteTokenizer, NO_CURE, parameterLayout, positionPrompt, randomStream, validateJobSpec } from "@segue/core";
import { createEngine, initialParameters, type Engine, type SegmentBatch } from "@segue/engine";
import { evaluateLossCell } from "@segue/evaluator";

const { values: options } = parseArgs({
  options: {
    tokens: { type: "string", default: String(2 ** 20) },
    threads: { type: "string", default: "0" },
    engine: { type: "string", default: "cpu" },
    prompt: { type: "string", default: "newlines" },
    segments: { type: "string", default: "512,1024,2048,4096" },
  },
});
/** Passes of every length in turn. */
const ROUNDS = 6;
/** Segments of the evaluation between two bare passes. */
const BETWEEN = 8;

const { model } = validateJobSpec({ model: { layers: 8, dModel: 256 }, data: { passkey: {} }, train: { steps: 1 } }).spec;
const tokenizer = byteTokenizer();
const prompt = options.prompt === "random" || options.prompt === "passkey" ? options.prompt : "newlines";

function batchOf(tokens: number): SegmentBatch {
  const random = randomStream(1, "bench");
  const text = Int32Array.from({ length: tokens + 1 }, () => random.below(256));
  return { lanes: 1, tokens, tokens_BT: text.slice(0, tokens), labels_BT: text.slice(1) };
}

function timed(work: () => void): number {
  const start = performance.now();
  work();
  return performance.now() - start;
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
const rate = (tokens: number, ms: number): string => `${Math.round((1000 * tokens) / ms).toLocaleString("en-US")} tokens/s`;

function compareSegments(engine: Engine): void {
  const runs = options.segments
    .split(",")
    .map((text) => ({ batch: batchOf(Number(text)), states: engine.createStates(1), ms: [] as number[] }));
  for (let round = 0; round < ROUNDS; round++) {
    for (const { batch, states, ms } of runs) ms.push(timed(() => void engine.score(batch, states)));
  }
  for (const { batch, states, ms } of runs) {
    console.log(
      `bare score, segments of ${String(batch.tokens).padStart(5)}: ${rate(batch.tokens, Math.min(...ms))}, the fastest of ${ROUNDS}`,
    );
    engine.freeStates(states);
  }
}

/** Scores as the engine does, notes how long each pass takes, and times a bare one now and then. */
function watched(engine: Engine): { engine: Engine; own: number[]; bare: number[]; bareMs: () => number; tokens: () => number } {
  const [own, bare]: [number[], number[]] = [[], []];
  const states = engine.createStates(1);
  let [bareMs, segmentTokens] = [0, 0];
  const score: Engine["score"] = (batch, of, forward) => {
    segmentTokens = Math.max(segmentTokens, batch.tokens);
    if (own.length % BETWEEN === 0) {
      const ms = timed(() => void engine.score({ ...batchOf(segmentTokens) }, states));
      bare.push(ms);
      bareMs += ms;
    }
    let losses: Float32Array = new Float32Array(0);
    own.push(timed(() => (losses = engine.score(batch, of, forward))));
    return losses;
  };
  const proxy = new Proxy(engine, {
    get: (target, name) => {
      const value: unknown = name === "score" ? score : Reflect.get(target, name, target);
      return typeof value === "function" && name !== "score" ? (value.bind(target) as unknown) : value;
    },
  });
  return { engine: proxy, own, bare, bareMs: () => bareMs, tokens: () => segmentTokens };
}

const engine = await createEngine(options.engine === "cuda" ? "cuda" : "cpu", {
  model,
  precision: "f32",
  threads: Number(options.threads),
});
engine.writeParameters(initialParameters(model, 1));
console.log(`${(parameterLayout(model).size / 1e6).toFixed(1)}M parameters on ${engine.description.detail}`);
compareSegments(engine);

const tokens = Number(options.tokens);
const readMs = timed(() => {
  const { read } = positionPrompt(tokenizer, { prompt, seed: 0, tokens }, 0);
  for (let at = 0; at < tokens; at += 2048) read(at, 2049);
});
const watch = watched(engine);
const { ms } = evaluateLossCell(
  { engine: watch.engine, tokenizer },
  {
    ...{ task: "lossByPosition", jobId: "bench", step: 1, digest: "00".repeat(32), evaluationId: "bench", cure: NO_CURE },
    ...{ firstPrompt: 0, prompts: 1, tokens, bucketTokens: 8192, prompt, seed: 0 },
  },
);
const cellMs = ms - watch.bareMs();
const scoreMs = watch.own.reduce((sum, own) => sum + own, 0);
const segments = watch.own.length;
console.log(
  `loss by position, ${tokens.toLocaleString("en-US")} tokens of ${prompt}: ${(cellMs / 1000).toFixed(1)} s, ${rate(tokens, cellMs)}`,
);
console.log(
  `  2^20 tokens take ${((cellMs / 1000) * (2 ** 20 / tokens)).toFixed(1)} s; ${rate(watch.tokens(), median(watch.bare))} bare in the same minutes`,
);
console.log(
  `  ${((100 * median(watch.bare)) / (cellMs / segments)).toFixed(0)} % of the bare speed; outside the engine ${(100 * (1 - scoreMs / cellMs)).toFixed(1)} %, of which reading the prompt ${((100 * readMs) / cellMs).toFixed(1)} %`,
);
engine.close();
