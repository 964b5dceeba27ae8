import { readFile } from "node:fs/promises";
import { Option, type Command } from "commander";
import { createTokenizer, mostWorkers, parseJobSpec, resolveVocabulary, SegueError, type JobSpec } from "@segue/core";
import { jobMemory, largestLanesPerShard, shardedMemory, type EngineName, type MemoryOptions } from "@segue/engine";
import { addJsonOption } from "../connection.js";
import { byteCount, wholeNumber } from "../numbers.js";
import { readSpec } from "../read-spec.js";
import { Output, type CliRuntime } from "../runtime.js";
import { formatBytes } from "../show/format.js";
import { memoryReport, shardedLine } from "../show/memory-report.js";

interface MemoryCommandOptions {
  readonly workers?: number;
  readonly engine?: EngineName;
  readonly threads: number;
  readonly limit?: number;
  readonly json?: boolean;
}

export function addMemoryCommand(program: Command, runtime: CliRuntime): void {
  addJsonOption(program.command("memory <file>"))
    .description("tell what a job spec needs of memory, before anything starts")
    .option("--workers <count>", "workers that share the job (default: workers.min of the spec)", wholeNumber(1, 2 ** 20))
    .addOption(new Option("--engine <name>", "engine (default: the spec's; auto counts as cpu)").choices(["cuda", "cpu", "tfjs"]))
    .option("--threads <count>", "CPU threads of each worker", wholeNumber(1, 1024), 1)
    .option(
      "--limit <bytes>",
      "say how many lanes a shard may have within this much, for example 8GiB; of the GPU for cuda",
      byteCount,
    )
    .addHelpText(
      "after",
      "\nNeeds no coordinator; with tokenizer.kind huggingface and no model.vocab it reads tokenizer.file on this machine.\n\n" +
        "Examples:\n  segue memory recipes/text.yaml --workers 2\n  segue memory recipes/text.yaml --limit 8GiB\n",
    )
    .action((file: string, options: MemoryCommandOptions) => tellMemory(file, options, runtime));
}

async function tellMemory(file: string, options: MemoryCommandOptions, runtime: CliRuntime): Promise<void> {
  const output = new Output(runtime, options.json === true);
  const { spec, warnings } = parseJobSpec(await readSpec(file));
  for (const warning of warnings) output.note(`warning: ${warning}`);
  const sized = await withVocabulary(spec);
  const given = memoryOptions(sized, options);
  const memory = jobMemory(sized, given);
  const { limit } = options;
  const limits = given.engine === "cuda" ? { deviceBytes: limit } : { hostBytes: limit };
  const largest = limit === undefined ? undefined : largestLanesPerShard(sized, given, limits);
  const sharded = shardedMemory(sized, given);
  output.result(
    {
      ...memory,
      ...(sharded && { sharded: sharded.worker }),
      ...(largest === undefined ? {} : { limitBytes: limit, largestLanesPerShard: largest }),
    },
    () =>
      [
        memoryReport(memory),
        ...(sharded ? ["", shardedLine(sharded)] : []),
        ...(limit === undefined ? [] : ["", lanesText(sized, limit, largest ?? 0)]),
      ].join("\n"),
  );
}

/** What a report is about where nobody said more than the spec does. */
export function memoryOptions(spec: JobSpec, given: Partial<MemoryOptions> = {}): MemoryOptions {
  const { engine } = spec.train;
  const workers = given.workers ?? spec.workers.min;
  const most = mostWorkers(spec);
  if (workers > most) {
    const message = `This job can use 1 to ${most} workers, not ${workers}: a worker holds at least one shard, under diloco one replica.`;
    throw new SegueError("USAGE", message);
  }
  return { workers, engine: given.engine ?? (engine === "auto" ? "cpu" : engine), threads: given.threads ?? 1 };
}

async function withVocabulary(spec: JobSpec): Promise<JobSpec> {
  const { kind, file } = spec.tokenizer;
  if (kind === "bytes" || file === undefined || spec.model.vocab > 0) return spec;
  try {
    return resolveVocabulary(spec, createTokenizer(spec.tokenizer, JSON.parse(await readFile(file, "utf8"))).vocab);
  } catch (cause) {
    if (cause instanceof SegueError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SegueError("FILE_UNREADABLE", `Cannot read the tokenizer ${file} (${reason}); give model.vocab instead.`, { cause });
  }
}

function lanesText({ batch }: JobSpec, limitBytes: number, largest: number): string {
  const limit = formatBytes(limitBytes);
  if (largest === 0) return `Not even one lane a shard fits into ${limit}: take a shorter segment or a smaller model.`;
  return `The most lanes a shard within ${limit}: batch.lanesPerShard ${largest} (the spec has ${batch.lanesPerShard}).`;
}
