import { Option, type Command } from "commander";
import { MODEL_PRESETS, modelCapacity, parseJobSpec, SegueError, type ModelCapacity, type ModelSpec } from "@segue/core";
import { addJsonOption } from "../connection.js";
import { modelOf, namedModels, PUBLIC_VOCAB } from "../named-models.js";
import { wholeNumber } from "../numbers.js";
import { readSpec } from "../read-spec.js";
import { Output, type CliRuntime } from "../runtime.js";
import { formatBytes, formatCount, formatShort } from "../show/format.js";
import { renderTable, type Column } from "../show/table.js";

const SIZES = { min: 1, max: 2 ** 20 } as const;

interface CapacityOptions {
  readonly spec?: string;
  readonly preset?: string;
  readonly layers?: number;
  readonly dModel?: number;
  readonly dState?: number;
  readonly headDim?: number;
  readonly vocab: number;
  readonly json?: boolean;
}

interface NamedCapacity extends ModelCapacity {
  readonly name: string;
  readonly model: ModelSpec;
}

export function addCapacityCommand(program: Command, runtime: CliRuntime): void {
  const size = wholeNumber(SIZES.min, SIZES.max);
  addJsonOption(program.command("capacity"))
    .description("sizes of a model, and the lengths that the paper's laws predict for its state")
    .option("--spec <file>", "the model of a job spec")
    .addOption(new Option("--preset <name>", "a named model").choices(Object.keys(MODEL_PRESETS)))
    .option("--layers <count>", "blocks", size)
    .option("--d-model <width>", "width of the residual stream", size)
    .option("--d-state <size>", "state size of a channel", size)
    .option("--head-dim <width>", "channels of a head", size)
    .option("--vocab <size>", "rows of the embedding", size, PUBLIC_VOCAB)
    .addHelpText(
      "after",
      "\nWithout a model: all named ones. FORGET is the training length from which the state should not collapse any more, RECALL the\n" +
        "longest context with near-perfect passkeys, both for models trained as the paper's.\n\n" +
        "Examples:\n  segue capacity\n  segue capacity --layers 8 --d-model 512\n  segue capacity --spec job.yaml --json\n",
    )
    .action(async (options: CapacityOptions) => {
      const output = new Output(runtime, options.json === true);
      const capacities = (await modelsOf(options)).map(({ name, model }) => ({ name, model, ...modelCapacity(model) }));
      output.result({ models: capacities }, () => capacityText(capacities));
    });
}

async function modelsOf(options: CapacityOptions): Promise<{ name: string; model: ModelSpec }[]> {
  const { spec: file, preset, layers, dModel, dState, headDim, vocab } = options;
  const given = Object.fromEntries(
    Object.entries({ preset, layers, dModel, dState, headDim }).filter(([, value]) => value !== undefined),
  );
  const sized = Object.keys(given).length > 0;
  if (file !== undefined) {
    if (sized) throw new SegueError("USAGE", "--spec has a model of its own; leave out the sizes, or the file.");
    const { spec } = parseJobSpec(await readSpec(file));
    // A tokenizer file settles the vocabulary later, in the coordinator.
    const model = spec.model.vocab === 0 ? { ...spec.model, vocab } : spec.model;
    return [{ name: spec.name, model }];
  }
  if (sized) return [{ name: preset ?? "model", model: modelOf({ ...given, vocab }) }];
  return namedModels(vocab);
}

export function capacityText(capacities: readonly NamedCapacity[]): string {
  const length = (tokens: number | null): string => (tokens === null ? "-" : `${formatCount(Math.round(tokens / 1024))}Ki`);
  const columns: Column<NamedCapacity>[] = [
    { title: "MODEL", value: ({ name }) => name },
    { title: "PARAMETERS", value: ({ parameters }) => formatCount(parameters), right: true },
    { title: "STATE", value: ({ stateFloats }) => formatShort(stateFloats), right: true },
    { title: "STATE A LANE", value: ({ stateBytes }) => formatBytes(stateBytes), right: true },
    { title: "WEIGHTS", value: ({ parameterBytes }) => formatBytes(parameterBytes), right: true },
    { title: "WITH OPTIMIZER", value: ({ trainingBytes }) => formatBytes(trainingBytes), right: true },
    { title: "FORGET", value: ({ forgetTokens }) => length(forgetTokens), right: true },
    { title: "RECALL", value: ({ recallTokens }) => length(recallTokens), right: true },
  ];
  const warnings = capacities.flatMap(({ name, warnings }) => warnings.map((warning) => `${name}: ${warning}`));
  return [renderTable(columns, capacities), ...(warnings.length > 0 ? ["", ...warnings] : [])].join("\n");
}
