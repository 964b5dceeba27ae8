/**
 * The process that holds the model: computing blocks its event loop, which must not be the one that renews the queue's locks. Speaks
 * {@link ModelRequest} and {@link ModelReply} over Node's IPC with the process that started it, and ends with it.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createTokenizer, SegueError, validateJobSpec } from "@segue/core";
import { createEngine, readModelFolder } from "@segue/engine";
import type { ModelReply, ModelRequest } from "./model-messages.js";
import { PrefixStates } from "./prefix-states.js";
import type { Cell, Subject } from "./tasks/task.js";
import { taskOf } from "./tasks/tasks.js";

const PROGRESS_MS = 500;

let loaded: { readonly folder: string; readonly subject: Subject } | undefined;

async function subjectOf({ folder, engine: choice, threads }: ModelRequest): Promise<Subject> {
  if (loaded?.folder === folder) return loaded.subject;
  loaded?.subject.engine.close();
  loaded = undefined;
  const { model, parameters } = await readModelFolder(folder);
  const manifest = JSON.parse(await readFile(join(folder, "manifest.json"), "utf8")) as { spec: unknown };
  const { spec } = validateJobSpec(manifest.spec);
  const tokenizerJson =
    spec.tokenizer.kind === "huggingface"
      ? (JSON.parse(await readFile(join(folder, "tokenizer.json"), "utf8")) as unknown)
      : undefined;
  // Evaluations are in float32 (paper.md section 4.4), whatever the training computes in.
  const engine = await createEngine(choice, { model, precision: "f32", threads });
  engine.writeParameters(parameters);
  loaded = {
    folder,
    subject: {
      engine,
      tokenizer: createTokenizer(spec.tokenizer, tokenizerJson),
      segmentTokens: spec.tbptt.segmentTokens,
      prefixes: new PrefixStates(engine),
    },
  };
  return loaded.subject;
}

function send(reply: ModelReply): void {
  process.send?.(reply);
}

async function answer(request: ModelRequest, cell: Cell): Promise<void> {
  try {
    const subject = await subjectOf(request);
    send({ id: request.id, kind: "engine", engine: subject.engine.description.detail });
    let sentAt = performance.now();
    const progress = (done: number): void => {
      if (performance.now() - sentAt < PROGRESS_MS) return;
      sentAt = performance.now();
      send({ id: request.id, kind: "progress", done });
    };
    const result = taskOf(cell).evaluate(subject, cell, progress);
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
