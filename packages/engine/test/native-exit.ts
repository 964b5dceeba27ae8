/** A process for tests: two compute threads and the main one are busy in native code when it exits, in the way its argument names. */
import { Worker } from "node:worker_threads";
import { trainFor } from "./native-worker.js";

const way = process.argv[2];
const afterMs = Number(process.argv[3]);
const forever = { steps: 1e9, threads: 2 };

const workers = [0, 1].map(() => new Worker(new URL("./native-worker.mjs", import.meta.url), { workerData: forever }));
await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once("message", resolve))));
await trainFor({ steps: 2, threads: 2 }, () => undefined);

setTimeout(() => {
  if (way === "exit") process.exit(0);
  // The event loop runs dry once both are gone.
  void Promise.all(workers.map((worker) => worker.terminate()));
}, afterMs);
