import { parentPort, workerData } from "node:worker_threads";
import { SegueError } from "@segue/core";
import type { CallName, ComputeRequest, ComputeResponse, ComputeThreadData } from "./calls.js";
import { ComputeHost, type EngineFactory } from "./host.js";

/** Makes the current worker thread a compute thread: answers {@link ComputeCalls} one after the other with engines of `factory`. */
export function serveCompute(factory: EngineFactory): void {
  const port = parentPort;
  if (!port) throw new Error("the compute thread must be started as a worker thread");
  const host = new ComputeHost(factory, (workerData as ComputeThreadData).fence);
  const answer = async ({ id, name, request }: ComputeRequest): Promise<void> => {
    let response: ComputeResponse;
    try {
      response = { id, ok: true, response: await call(host, name, request) };
    } catch (error) {
      const { code, message, stack } = describe(error);
      response = { id, ok: false, code, message, stack };
    }
    port.postMessage(response);
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
