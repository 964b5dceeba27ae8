import { setImmediate as nextTurn } from "node:timers/promises";
import { Option, type Command } from "commander";
import {
  headStatistics,
  laneStateFloats,
  positionPrompt,
  varianceGrowth,
  type HeadGrowth,
  type LossByPositionSpec,
  type StateSample,
} from "@segue/core";
import type { EngineName } from "@segue/engine";
import { addJsonOption } from "../connection.js";
import { openModelFolder } from "../model-folder.js";
import { wholeNumber } from "../numbers.js";
import { Output, type CliRuntime } from "../runtime.js";
import { formatCount } from "../show/format.js";
import { renderTable, type Column } from "../show/table.js";

const MAX_TOKENS = 2 ** 30;
const SHOWN_SAMPLES = 16;
const SHOWN_HEADS = 8;

interface StatesOptions extends Pick<LossByPositionSpec, "prompt" | "seed" | "tokens"> {
  readonly every: number;
  readonly trainTokens?: number;
  readonly engine: EngineName | "auto";
  readonly threads: number;
  readonly json?: boolean;
}

export function addStatesCommand(program: Command, runtime: CliRuntime): void {
  addJsonOption(program.command("states <dir>"))
    .description("statistics of every head's recurrent state along a long text")
    .addOption(new Option("--prompt <kind>", "what to read").choices(["newlines", "passkey", "random"]).default("newlines"))
    .option("--tokens <count>", "how much of it, K is 1,024", wholeNumber(1, MAX_TOKENS), 32 * 1024)
    .option("--every <tokens>", "tokens between two samples", wholeNumber(1, 2 ** 20), 128)
    .option("--train-tokens <tokens>", "training length: tell which heads' variances grow beyond it", wholeNumber(1, MAX_TOKENS))
    .option("--seed <seed>", "of the text", wholeNumber(0, 2 ** 32 - 1), 0)
    .addOption(new Option("--engine <name>", "what computes").choices(["auto", "cuda", "cpu", "tfjs"]).default("auto"))
    .option("--threads <count>", "CPU threads; 0: as many as there are cores", wholeNumber(0, 1024), 0)
    .addHelpText(
      "after",
      "\nThe folder is what segue export writes, or a public Mamba-2 model. --json has every head of every sample.\n\n" +
        "Example:\n  segue states ./text-model --tokens 64K --train-tokens 2K\n",
    )
    .action((dir: string, options: StatesOptions) => states(dir, options, runtime));
}

async function states(dir: string, options: StatesOptions, runtime: CliRuntime): Promise<void> {
  const output = new Output(runtime, options.json === true);
  const { engine, tokenizer } = await openModelFolder(dir, options);
  const samples: StateSample[] = [];
  try {
    output.note(`engine ${engine.description.detail}`);
    const { read } = positionPrompt(tokenizer, options, 0);
    const lane = engine.createStates(1);
    const state_F = new Float32Array(laneStateFloats(engine.model));
    for (let at = 0; at < options.tokens; at += options.every) {
      const tokens = Math.min(options.every, options.tokens - at);
      engine.prefill({ lanes: 1, tokens, tokens_BT: read(at, tokens) }, lane);
      engine.readStates(lane, state_F);
      samples.push({ tokens: at + tokens, heads: headStatistics(engine.model, state_F) });
      // Computing blocks: only between two pieces can Ctrl-C be heard.
      await nextTurn();
      runtime.signal.throwIfAborted();
    }
  } finally {
    engine.close();
  }
  const { prompt, seed, every, trainTokens } = options;
  const growth = trainTokens === undefined ? [] : varianceGrowth(samples, trainTokens);
  output.result({ folder: dir, prompt, seed, every, trainTokens, growth, samples }, () => statesText(samples, growth));
}

/** Every n-th sample, over all heads, and the heads that grow the most. */
export function statesText(samples: readonly StateSample[], growth: readonly HeadGrowth[]): string {
  const every = Math.ceil(samples.length / SHOWN_SAMPLES);
  const shown = samples.filter((_, index) => (index + 1) % every === 0 || index === samples.length - 1);
  const exponent = (value: number): string => value.toExponential(2);
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const worst = ({ heads }: StateSample) => heads.reduce((a, b) => (b.variance > a.variance ? b : a));
  const columns: Column<StateSample>[] = [
    { title: "TOKENS", value: ({ tokens }) => formatCount(tokens), right: true },
    { title: "MEAN", value: ({ heads }) => exponent(mean(heads.map((head) => head.mean))), right: true },
    { title: "RMS", value: ({ heads }) => exponent(mean(heads.map(({ rms }) => rms))), right: true },
    { title: "VARIANCE", value: ({ heads }) => exponent(mean(heads.map(({ variance }) => variance))), right: true },
    { title: "LARGEST VARIANCE", value: (sample) => exponent(worst(sample).variance), right: true },
    { title: "LAYER.HEAD", value: (sample) => `${worst(sample).layer}.${worst(sample).head}`, right: true },
  ];
  const text = ["means over all heads, and the head with the largest variance", renderTable(columns, shown)];
  if (growth.length === 0) return text.join("\n");
  const growing: Column<HeadGrowth>[] = [
    { title: "LAYER.HEAD", value: ({ layer, head }) => `${layer}.${head}`, right: true },
    { title: "WITHIN", value: ({ within }) => exponent(within), right: true },
    { title: "BEYOND", value: ({ beyond }) => exponent(beyond), right: true },
    { title: "RATIO", value: ({ ratio }) => ratio.toFixed(2), right: true },
  ];
  const title = "largest variances within and beyond the training length, the fastest growing heads";
  return [...text, "", title, renderTable(growing, growth.slice(0, SHOWN_HEADS))].join("\n");
}
