import { setImmediate as nextTurn } from "node:timers/promises";
import { InvalidArgumentError, Option, type Command } from "commander";
import { SegueError, TextStream } from "@segue/core";
import { continueText, prefillStream, type EngineName } from "@segue/engine";
import { addJsonOption } from "../connection.js";
import { openModelFolder } from "../model-folder.js";
import { wholeNumber } from "../numbers.js";
import { promptTokens } from "../prompt-tokens.js";
import { Output, type CliRuntime } from "../runtime.js";
import { formatCount } from "../show/format.js";

interface GenerateOptions {
  readonly prompt?: string;
  readonly promptFile?: string;
  readonly tokens: number;
  readonly temperature: number;
  readonly seed: number;
  readonly engine: EngineName | "auto";
  readonly threads: number;
  readonly json?: boolean;
}

export function addGenerateCommand(program: Command, runtime: CliRuntime): void {
  addJsonOption(program.command("generate <dir>"))
    .description("continue a text with the model of a checkpoint folder")
    .option("--prompt <text>", "what comes before (default: nothing, as at the start of a document)")
    .option("--prompt-file <file>", "the same from a file of any length; - reads standard input")
    .option("--tokens <count>", "most tokens to add; the model's end token ends earlier", wholeNumber(1, 2 ** 31 - 1), 256)
    .option("--temperature <factor>", "0: the most likely token each time; 1: by the model's probabilities", temperature, 0)
    .option("--seed <seed>", "of what is drawn; the same seed gives the same text", wholeNumber(0, 2 ** 32 - 1), 0)
    .addOption(new Option("--engine <name>", "what computes").choices(["auto", "cuda", "cpu", "tfjs"]).default("auto"))
    .option("--threads <count>", "CPU threads; 0: as many as there are cores", wholeNumber(0, 1024), 0)
    .addHelpText(
      "after",
      "\nThe folder has config.json, model.safetensors and, unless the model reads bytes, tokenizer.json: what segue export writes, or a\n" +
        "public Mamba-2 model. The text goes to standard output as it is made, up to an end token (eos_token_id of generation_config.json\n" +
        "or config.json, eos_token of tokenizer_config.json or special_tokens_map.json: the first that is there). The prompt's length\n" +
        "costs time but no memory.\n\n" +
        'Examples:\n  segue generate ./text-model --prompt "The grass is"\n' +
        "  segue generate ./text-model --prompt-file book.txt --temperature 0.8 --tokens 1K\n",
    )
    .action((dir: string, options: GenerateOptions) => generate(dir, options, runtime));
}

async function generate(dir: string, options: GenerateOptions, runtime: CliRuntime): Promise<void> {
  if (options.prompt !== undefined && options.promptFile !== undefined) {
    throw new SegueError("USAGE", "Give --prompt or --prompt-file, not both.");
  }
  const output = new Output(runtime, options.json === true);
  const { engine, tokenizer, endIds } = await openModelFolder(dir, options);
  const { model } = engine;
  try {
    const states = engine.createStates(1);
    const startedAt = performance.now();
    const prompt = await prefillStream(engine, states, promptTokens(options, tokenizer, runtime.signal));
    const logits_V = prompt.logits_V ?? engine.prefill({ lanes: 1, tokens: 1, tokens_BT: Int32Array.of(tokenizer.eosId) }, states);
    const promptSeconds = (performance.now() - startedAt) / 1000;
    const vocab = Math.min(tokenizer.vocab, model.vocab);
    const sampling = { vocab, temperature: options.temperature, seed: options.seed, endIds };
    const stream = new TextStream(tokenizer);
    const tokens: number[] = [];
    let text = "";
    const say = (part: string): void => {
      text += part;
      if (!output.json) runtime.stdout.write(part);
    };
    for (const token of continueText(engine, states, logits_V, options.tokens, sampling)) {
      tokens.push(token);
      say(stream.push(token));
      // Computing blocks: only between two tokens can Ctrl-C be heard and the text leave.
      await nextTurn();
      runtime.signal.throwIfAborted();
    }
    say(stream.end());
    const seconds = (performance.now() - startedAt) / 1000 - promptSeconds;
    const found = { engine: engine.description.detail, promptTokens: prompt.tokens, promptSeconds, tokens, seconds };
    if (output.json) output.result({ text, ...found }, () => "");
    else runtime.stdout.write("\n");
    const speed = formatCount(Math.round(tokens.length / Math.max(seconds, 1e-9)));
    output.note(
      `${found.engine}: ${formatCount(prompt.tokens)} tokens read, ${formatCount(tokens.length)} made, ${speed} a second`,
    );
  } finally {
    engine.close();
  }
}

function temperature(text: string): number {
  const value = text.trim() === "" ? NaN : Number(text);
  if (value >= 0 && value <= 100) return value;
  throw new InvalidArgumentError("It must be a number from 0 to 100.");
}
