import { Option, type Command } from "commander";
import { wholeNumber } from "../numbers.js";

/** Options that the kinds over long prompts share; what is absent takes the kind's default. */
export interface LongPromptOptions {
  readonly name?: string;
  readonly tokens?: number;
  readonly prompt?: string;
  readonly seed: number;
}

const MAX_TOKENS = 2 ** 30;

export function addLongPromptOptions(command: Command): Command {
  return command
    .option("--tokens <tokens>", "loss, states, remembrance: tokens of a prompt (default: 1M, 32K, 8K)", wholeNumber(1, MAX_TOKENS))
    .addOption(
      new Option("--prompt <kind>", "loss, states, remembrance: what to read (default: newlines, of remembrance corpus)").choices([
        "newlines",
        "passkey",
        "random",
        "corpus",
      ]),
    )
    .option("--prompts <count>", "loss, remembrance: prompts averaged over (default: 1, of remembrance 8)", wholeNumber(1, 4096))
    .option(
      "--train-tokens <tokens>",
      "loss, states: training length (default: the job's longest chain of segments)",
      wholeNumber(1, MAX_TOKENS),
    );
}

/** The settings that are given. */
export function given<T extends object>(settings: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: NonNullable<T[K]>;
  };
}
