import { writeFile } from "node:fs/promises";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Option, type Command } from "commander";
import {
  packStates,
  positionPrompt,
  summariseStates,
  varianceGrowth,
  type HeadGrowth,
  type GeneratedPrompt,
  type StateSample,
} from "@segue/core";
import { traceStates, type EngineName } from "@segue/engine";
import { addJsonOption } from "../connection.js";
import { openModelFolder } from "../model-folder.js";
import { tokenCounts, wholeNumber } from "../numbers.js";
import { Output, type CliRuntime } from "../runtime.js";
import { formatCount } from "../show/format.js";
import { renderTable, type Column } from "../show/table.js";

const MAX_TOKENS = 2 ** 30;
const SHOWN_SAMPLES = 16;
const SHOWN_HEADS = 8;

interface StatesOptions extends GeneratedPrompt {
  readonly every: number;
  readonly trainTokens?: number;
  readonly histograms: number[];
  readonly out?: string;
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
    .option("--histograms <tokens,...>", "places where every head's distribution is taken, into --out", tokenCounts, [])
    .option("--out <file>", "write every statistic of every sample as safetensors")
    .option("--seed <seed>", "of the text", wholeNumber(0, 2 ** 32 - 1), 0)
    .addOption(new Option("--engine <name>", "what computes").choices(["auto", "cuda", "cpu", "tfjs"]).default("auto"))
    .option("--threads <count>", "CPU threads; 0: as many as there are cores", wholeNumber(0, 1024), 0)
    .addHelpText(
      "after",
      "\nThe folder is what segue export writes, or a public Mamba-2 model. --json has every head of every sample,\n" +
        "and so has --out, in little space (docs/reference/state-statistics.md).\n\n" +
        "Example:\n  segue states ./text-model --tokens 64K --train-tokens 2K --histograms 8K,20K --out states.safetensors\n",
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
    const { tokens, every: everyTokens, histograms: histogramTokens } = options;
    for (const sample of traceStates(engine, read, { tokens, everyTokens, histogramTokens })) {
      samples.push(sample);
      // Computing blocks: only between two pieces can Ctrl-C be heard.
      await nextTurn();
      runtime.signal.throwIfAborted();
    }
    if (options.out !== undefined) {
      const { prompt, seed } = options;
      await writeFile(options.out, packStates(engine.model, samples, { prompt, seed: String(seed) }));
      output.note(`wrote ${options.out}`);
    }
  } finally {
    engine.close();
  }
  const { prompt, seed, every, trainTokens } = options;
  const growth = trainTokens === undefined ? [] : varianceGrowth(samples, trainTokens);
  const summary = summariseStates(samples, trainTokens ?? options.tokens);
  output.result({ folder: dir, prompt, seed, every, trainTokens, growth, summary, samples }, () => statesText(samples, growth));
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
