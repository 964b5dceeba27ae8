import { fork, type ChildProcess } from "node:child_process";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { SegueError } from "@segue/core";
import type { ModelReply, ModelRequest } from "./model-messages.js";
import type { CellResult } from "./tasks/task.js";

export interface ModelListener {
  readonly engine: (engine: string) => void;
  readonly progress: (done: number) => void;
}

/** The child process with the model, started at the first request and again after it died. One request at a time. */
export class ModelProcess {
  #child: ChildProcess | undefined;
  #nextId = 1;

  /** Of the child, while there is one. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /**
   * @throws SegueError with the child's code, or MODEL_PROCESS_DIED (retryable) when it ends without an answer; the signal's reason when
   * it aborts, which ends the child: a forward pass cannot be interrupted otherwise
   */
  evaluate(request: Omit<ModelRequest, "id">, listener: ModelListener, signal: AbortSignal): Promise<CellResult> {
    const child = (this.#child ??= this.#start());
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        child.off("message", onMessage).off("exit", onExit);
        signal.removeEventListener("abort", onAbort);
      };
      const onMessage = (reply: ModelReply): void => {
        if (reply.id !== id) return;
        if (reply.kind === "engine") return listener.engine(reply.engine);
        if (reply.kind === "progress") return listener.progress(reply.done);
        settle();
        if (reply.kind === "result") resolve(reply.result);
        else reject(new SegueError(reply.code, reply.message, { status: "INTERNAL" }));
      };
      const onExit = (code: number | null, killedBy: string | null): void => {
        settle();
        const message = `The process with the model ended (${killedBy ?? `exit code ${code}`}) in the middle of a cell.`;
        reject(new SegueError("MODEL_PROCESS_DIED", message, { status: "UNAVAILABLE", retryable: true }));
      };
      const onAbort = (): void => {
        settle();
        this.close();
        reject(signal.reason as Error);
      };
      child.on("message", onMessage).on("exit", onExit);
      signal.addEventListener("abort", onAbort, { once: true });
      if (signal.aborted) onAbort();
      else child.send({ ...request, id } satisfies ModelRequest);
    });
  }

  /** Ends the child. Idempotent. */
  close(): void {
    this.#child?.kill("SIGKILL");
    this.#child = undefined;
  }

  #start(): ChildProcess {
    const self = fileURLToPath(import.meta.url);
    const child = fork(new URL(`./model-child${extname(self)}`, import.meta.url), { serialization: "advanced" });
    const forget = (): void => {
      if (this.#child === child) this.#child = undefined;
    };
    // A request that cannot be sent to a dying child is settled by its exit.
    child.once("exit", forget).on("error", forget);
    return child;
  }
}
