/**
 * The process that holds the model: computing blocks its event loop, which must not be the one that renews the queue's locks. Speaks
 * {@link ModelRequest} and {@link ModelReply} over Node's IPC with the process that started it, and ends with it.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createTokenizer, namedEndTokens, parsePythonJson, SegueError, tbpttAt, validateJobSpec } from "@segue/core";
import { createEngine, loadParameters, readModelConfig } from "@segue/engine";
import type { ModelReply, ModelRequest } from "./model-messages.js";
import { Subjects } from "./subjects.js";
import type { Cell } from "./tasks/task.js";
import { taskOf } from "./tasks/tasks.js";

const PROGRESS_MS = 500;

let loaded: { readonly folder: string; readonly subjects: Subjects } | undefined;

async function subjectsOf({ folder, engine: choice, threads, gpu }: ModelRequest): Promise<Subjects> {
  if (loaded?.folder === folder) return loaded.subjects;
  loaded?.subjects.close();
  loaded = undefined;
  const model = await readModelConfig(folder);
  const manifest = JSON.parse(await readFile(join(folder, "manifest.json"), "utf8")) as { spec: unknown; step: number };
  const { spec } = validateJobSpec(manifest.spec);
  const tokenizerJson =
    spec.tokenizer.kind === "huggingface"
      ? (JSON.parse(await readFile(join(folder, "tokenizer.json"), "utf8")) as unknown)
      : undefined;
  // The end token that the documents of the training had, however it was found.
  const config = parsePythonJson(await readFile(join(folder, "config.json"), "utf8"));
  const [eosId = spec.tokenizer.eosId] = namedEndTokens({ config }, model.vocab, () => undefined);
  // Evaluations are in float32 (paper.md section 4.4), whatever the training computes in.
  const engine = await createEngine(choice, { model, precision: "f32", threads, gpu });
  try {
    await loadParameters(engine, folder);
  } catch (error) {
    engine.close();
    throw error;
  }
  const { segmentTokens } = tbpttAt(spec.tbptt, Math.max(0, manifest.step - 1));
  const subjects = new Subjects(engine, createTokenizer({ ...spec.tokenizer, eosId }, tokenizerJson), segmentTokens);
  loaded = { folder, subjects };
  return subjects;
}

function send(reply: ModelReply): void {
  process.send?.(reply);
}

async function answer(request: ModelRequest, cell: Cell): Promise<void> {
  try {
    const subjects = await subjectsOf(request);
    send({ id: request.id, kind: "engine", engine: subjects.engine.description.detail });
    let sentAt = performance.now();
    const progress = (done: number): void => {
      if (performance.now() - sentAt < PROGRESS_MS) return;
      sentAt = performance.now();
      send({ id: request.id, kind: "progress", done });
    };
    const result = taskOf(cell).evaluate(subjects.of(cell, request.corpus), cell, progress);
    send({ id: request.id, kind: "result", result });
  } catch (error) {
    const known = error instanceof SegueError;
    const message = error instanceof Error ? error.message : String(error);
    send({ id: request.id, kind: "error", code: known ? error.code : "EVALUATION_FAILED", message });
  }
}

process.on("message", (request: ModelRequest) => void answer(request, request.cell));
process.on("disconnect", () => process.exit(0));
// Ctrl-C in a terminal reaches the whole group; the parent decides when this process ends.
process.on("SIGINT", () => undefined);
