import { cureKey, type Tokenizer } from "@segue/core";
import { curedEngine, type Engine } from "@segue/engine";
import { mostSnapshots, PrefixStates } from "./prefix-states.js";
import type { Corpus } from "./corpus.js";
import type { Cell, Subject } from "./tasks/task.js";
import { taskOf } from "./tasks/tasks.js";

/** One model with the cure of the cell at hand. The states that are kept of it are of no use with another cure, and go with it. */
export class Subjects {
  readonly engine: Engine;
  readonly #tokenizer: Tokenizer;
  readonly #segmentTokens: number;
  #current: { readonly cure: string; readonly subject: Subject } | undefined;

  /** Owns the engine. @param segmentTokens of the job's training */
  constructor(engine: Engine, tokenizer: Tokenizer, segmentTokens: number) {
    this.engine = engine;
    this.#tokenizer = tokenizer;
    this.#segmentTokens = segmentTokens;
  }

  /** @param corpus what the cell's task asks for; @throws SegueError CURE_UNSUPPORTED */
  of(cell: Cell, corpus: Corpus = []): Subject {
    const { cure } = cell;
    const reference = taskOf(cell).reference(cell);
    const key = cure.kind === "normalised" ? `${cureKey(cure)} by ${reference.name}` : cureKey(cure);
    if (this.#current?.cure === key) return withCorpus(this.#current.subject, corpus);
    this.#forget();
    const engine = this.#cured(cell, corpus);
    const subject = {
      engine,
      tokenizer: this.#tokenizer,
      segmentTokens: this.#segmentTokens,
      prefixes: new PrefixStates(engine, mostSnapshots(engine.model, cure)),
    };
    this.#current = { cure: key, subject };
    return withCorpus(subject, corpus);
  }

  close(): void {
    this.#forget();
    this.engine.close();
  }

  #cured(cell: Cell, corpus: Corpus): Subject["engine"] {
    const { cure } = cell;
    if (cure.kind !== "normalised") return curedEngine(this.engine, cure);
    const { read } = taskOf(cell).reference(cell).prompt({ tokenizer: this.#tokenizer, corpus }, cure.referenceTokens);
    return curedEngine(this.engine, cure, read);
  }

  #forget(): void {
    this.#current?.subject.prefixes.clear();
    this.#current = undefined;
  }
}

function withCorpus(subject: Subject, corpus: Corpus): Subject {
  return corpus.length === 0 ? subject : { ...subject, corpus };
}
