import type { ProgressTarget } from "./show/progress.js";

/** A stream the CLI writes to: process.stdout, or a test's. */
export interface TextSink {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** Everything of the world outside that commands use, so that tests can run them in their own process. */
export interface CliRuntime {
  readonly stdout: TextSink;
  readonly stderr: TextSink;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborts at the first Ctrl-C or SIGTERM. */
  readonly signal: AbortSignal;
}

/** What a command says: text for people, or one JSON value a line on stdout and nothing else. */
export class Output {
  readonly json: boolean;
  readonly #runtime: CliRuntime;

  constructor(runtime: CliRuntime, json: boolean) {
    this.#runtime = runtime;
    this.json = json;
  }

  /** The command's result. */
  result(value: unknown, text: () => string): void {
    this.#runtime.stdout.write(`${this.json ? JSON.stringify(value) : text()}\n`);
  }

  /** An aside for people. */
  note(text: string): void {
    if (!this.json) this.#runtime.stderr.write(`${text}\n`);
  }

  get colour(): boolean {
    return this.#runtime.stdout.isTTY === true && !this.#runtime.env["NO_COLOR"];
  }

  get progressTarget(): ProgressTarget {
    const { stdout } = this.#runtime;
    return { isTerminal: stdout.isTTY === true, columns: stdout.columns ?? 120, write: (text) => void stdout.write(text) };
  }
}
