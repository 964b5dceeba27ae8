import { parentPort, workerData } from "node:worker_threads";
import { SegueError } from "@segue/core";
import type { CallName, ComputeRequest, ComputeResponse, ComputeThreadData } from "./calls.js";
import { ComputeHost, type EngineFactory } from "./host.js";
import { Unfinished } from "./unfinished.js";

/** Makes the current worker thread a compute thread: answers {@link ComputeCalls} one after the other with engines of `factory`. */
export function serveCompute(factory: EngineFactory): void {
  const port = parentPort;
  if (!port) throw new Error("the compute thread must be started as a worker thread");
  const host = new ComputeHost(factory, (workerData as ComputeThreadData).fence);
  /** Waits for the step that was begun last, and answers its call. */
  let finishStep = (): void => undefined;
  const finish = (): void => {
    const last = finishStep;
    finishStep = () => undefined;
    last();
  };
  const answer = async ({ id, name, request }: ComputeRequest): Promise<void> => {
    const respond = (value: () => unknown): void => {
      let response: ComputeResponse;
      try {
        response = { id, ok: true, response: value() };
      } catch (error) {
        response = { id, ok: false, ...describe(error) };
      }
      port.postMessage(response);
    };
    // A step or a copy is begun behind the one before, so that a device of its own never waits for this thread. All else wants its end.
    if (name !== "wholeStep" && name !== "save") finish();
    try {
      const result = await call(host, name, request);
      finish();
      // Of a worker thread, this ends the thread alone.
      if (name === "end") process.exit();
      if (!(result instanceof Unfinished)) return respond(() => result);
      const own = (finishStep = () => respond(result.wait));
      // Behind the calls that are here already.
      setImmediate(() => {
        tail = tail.then(() => (finishStep === own ? finish() : undefined));
      });
    } catch (error) {
      finish();
      respond(() => {
        throw error;
      });
    }
  };
  // Only `open` and `probe` wait for anything; the chain keeps later calls behind them.
  let tail = Promise.resolve();
  port.on("message", (message: ComputeRequest) => {
    tail = tail.then(() => answer(message));
  });
}

/** The types of `name` and `request` belong together where they were sent; structured clone forgets it. */
function call(host: ComputeHost, name: CallName, request: unknown): unknown {
  return (host as unknown as Record<CallName, (request: unknown) => unknown>)[name](request);
}

function describe(error: unknown): { code: string; message: string; stack?: string | undefined } {
  if (error instanceof SegueError) return { code: error.code, message: error.message, stack: error.stack };
  if (error instanceof Error) return { code: "ENGINE_FAILED", message: error.message, stack: error.stack };
  return { code: "ENGINE_FAILED", message: String(error) };
}
