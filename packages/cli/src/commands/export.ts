import { chmod, mkdir, mkdtemp, readdir, rename, rm, rmdir } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { Option, type Command } from "commander";
import { SegueError, type ExportDtype } from "@segue/core";
import { exportFolder } from "@segue/engine";
import { pullFile, pullTensor, type Checkpoint, type FileRecord } from "@segue/protocol";
import { addConnectionOptions, withConnection, type Connected, type ConnectionOptions } from "../connection.js";
import { byteCount, wholeNumber } from "../numbers.js";
import type { CliRuntime } from "../runtime.js";
import { formatBytes, formatCount } from "../show/format.js";

/** What a Hugging Face folder is made of; the rest of a checkpoint is only of use for going on with training. */
const PULLED = ["config.json", "model.safetensors"] as const;
/** Jobs on a Hugging Face tokenizer have it in their checkpoints. */
const PULLED_IF_PRESENT = ["tokenizer.json"] as const;

interface ExportCommandOptions extends ConnectionOptions {
  readonly step?: number;
  readonly dtype: ExportDtype;
  readonly maxShardSize: number;
}

export function addExportCommand(program: Command, runtime: CliRuntime): void {
  addConnectionOptions(program.command("export <job> <dir>"))
    .description("write a checkpoint as a Hugging Face folder: model, tokenizer, end token")
    .option("--step <step>", "step of the checkpoint (default: the newest)", wholeNumber(0, 2 ** 32 - 1))
    .addOption(new Option("--dtype <type>", "of the weights; bf16 rounds them").choices(["f32", "bf16"]).default("f32"))
    .addOption(
      new Option("--max-shard-size <bytes>", "above it, weights go to several files and an index")
        .argParser(byteCount)
        .default(5e9, "5GB"),
    )
    .addHelpText(
      "after",
      "\nThe folder must not exist yet, or be empty. It appears when it is complete and its digests are verified.\n" +
        "transformers loads it (AutoModelForCausalLM, AutoTokenizer), and so do segue generate, states and verify\n" +
        "(docs/reference/model-folders.md).\n\n" +
        "Examples:\n  segue export text-7f3a ./text-model --step 4000\n  segue export text-7f3a ./text-model --dtype bf16\n",
    )
    .action((jobId: string, dir: string, options: ExportCommandOptions) =>
      withConnection(runtime, options, (connected) => exportCheckpoint(connected, jobId, resolve(dir), options)),
    );
}

async function exportCheckpoint(
  { connection, output, signal }: Connected,
  jobId: string,
  dir: string,
  { step, dtype, maxShardSize }: ExportCommandOptions,
): Promise<void> {
  const { checkpoints } = await connection.jobs.listCheckpoints({ jobId });
  const checkpoint = chooseCheckpoint(jobId, checkpoints, step);
  await requireFree(dir);
  await mkdir(dirname(dir), { recursive: true });
  const scratch = await mkdtemp(join(dirname(dir), `.${basename(dir)}-`));
  let exported: string[];
  try {
    const refOf = (file: string): string => `job/${jobId}/checkpoint/${checkpoint.step}/${file}`;
    const manifest = await pullTensor(connection.tensors, refOf("manifest.json"), { signal });
    const files = manifestFiles(manifest.data);
    for (const file of [...PULLED, ...PULLED_IF_PRESENT.filter((name) => files[name])]) {
      const record = files[file];
      if (!record) throw damaged(`${file} is not in the manifest of step ${checkpoint.step}`);
      output.note(`${file}: ${formatBytes(record.bytes)}`);
      await pullFile(connection.tensors, refOf(file), join(scratch, file), record, signal);
    }
    exported = await exportFolder(scratch, { dtype, mostFileBytes: maxShardSize });
    await chmod(scratch, 0o777 & ~process.umask());
    // An empty folder may be in the way; rename replaces it on Linux but not everywhere.
    await rmdir(dir).catch(() => undefined);
    await rename(scratch, dir);
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    throw error;
  }
  const { digest } = checkpoint;
  output.result(
    { jobId, step: checkpoint.step, digest, dir, dtype, files: exported },
    () => `exported step ${formatCount(checkpoint.step)} of ${jobId} to ${dir} (checkpoint digest ${digest.slice(0, 16)})`,
  );
}

function chooseCheckpoint(jobId: string, checkpoints: readonly Checkpoint[], step: number | undefined): Checkpoint {
  const newestFirst = [...checkpoints].sort((a, b) => b.step - a.step);
  const chosen = step === undefined ? newestFirst[0] : newestFirst.find((checkpoint) => checkpoint.step === step);
  if (chosen) return chosen;
  const steps = newestFirst.map((checkpoint) => checkpoint.step).join(", ");
  throw new SegueError(
    "CHECKPOINT_NOT_FOUND",
    steps === "" ? `${jobId} has no checkpoint yet.` : `${jobId} has no checkpoint at step ${step}; it has: ${steps}.`,
    { status: "NOT_FOUND" },
  );
}

async function requireFree(dir: string): Promise<void> {
  const entries = await readdir(dir).catch((error: NodeJS.ErrnoException) => (error.code === "ENOENT" ? [] : [error.message]));
  if (entries.length > 0) {
    throw new SegueError("FOLDER_NOT_EMPTY", `${dir} exists and is not an empty folder; choose another name.`);
  }
}

function manifestFiles(json: Uint8Array): Readonly<Record<string, FileRecord | undefined>> {
  try {
    return (JSON.parse(Buffer.from(json).toString("utf8")) as { files: Record<string, FileRecord> }).files;
  } catch (cause) {
    throw damaged("manifest.json cannot be read", cause);
  }
}

function damaged(message: string, cause?: unknown): SegueError {
  return new SegueError("CHECKPOINT_DAMAGED", `${message}.`, { status: "DATA_LOSS", cause });
}
