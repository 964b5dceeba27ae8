import { hostname } from "node:os";
import {
  announceReady,
  commonSettings,
  createLogger,
  readSettings,
  runService,
  securityFromSettings,
  serveProcessMetrics,
  settings,
} from "@segue/runtime";
import { z } from "zod";
import { Worker } from "./worker.js";

/** Kubernetes grants 30 s between SIGTERM and SIGKILL by default. */
const DRAIN_MS = 20_000;
const VERSION = "0.1.0";

const workerSettings = z.object({
  ...commonSettings,
  SEGUE_LISTEN: settings.SEGUE_LISTEN.default("127.0.0.1:0"),
  SEGUE_ADVERTISE: settings.SEGUE_ADVERTISE.optional(),
  SEGUE_COORDINATOR: settings.SEGUE_COORDINATOR.default("127.0.0.1:7070"),
  SEGUE_NAME: settings.SEGUE_NAME.default(`${hostname()}-${process.pid}`),
  SEGUE_ENGINE: settings.SEGUE_ENGINE.default("auto"),
  SEGUE_THREADS: settings.SEGUE_THREADS.default(0),
  SEGUE_NCCL_LIB: settings.SEGUE_NCCL_LIB.optional(),
});

await runService(
  async ({ signal }) => {
    const env = readSettings(workerSettings);
    const security = securityFromSettings(env);
    const metrics = await serveProcessMetrics("worker", env.SEGUE_METRICS_LISTEN, security, signal);
    const worker = await Worker.start({
      name: env.SEGUE_NAME,
      version: VERSION,
      listen: env.SEGUE_LISTEN,
      advertise: env.SEGUE_ADVERTISE,
      coordinator: env.SEGUE_COORDINATOR,
      security,
      engine: env.SEGUE_ENGINE,
      threads: env.SEGUE_THREADS,
      ncclLibrary: env.SEGUE_NCCL_LIB,
      logger: createLogger("worker", env.SEGUE_LOG_LEVEL),
    });
    announceReady(worker.address, env.SEGUE_READY_FD);
    try {
      await Promise.race([worker.done, aborted(signal)]);
      await worker.drain("SIGTERM", DRAIN_MS);
    } finally {
      await worker.close();
      await metrics?.close();
    }
  },
  { service: "worker" },
);

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
