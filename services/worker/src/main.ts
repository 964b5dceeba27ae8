import { availableParallelism, hostname } from "node:os";
import { fileURLToPath } from "node:url";
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
import { probeDevices } from "./devices.js";
import { memberPlans } from "./members/member-plans.js";
import { endWithStarter } from "./members/member-process.js";
import { Supervisor } from "./members/supervisor.js";
import { Worker } from "./worker.js";

/** Kubernetes grants 30 s between SIGTERM and SIGKILL by default. */
const DRAIN_MS = 20_000;
/** What a member takes to close when it has drained. */
const CLOSE_MS = 5_000;
const VERSION = "0.1.0";

const workerSettings = z.object({
  ...commonSettings,
  SEGUE_LISTEN: settings.SEGUE_LISTEN.default("127.0.0.1:0"),
  SEGUE_ADVERTISE: settings.SEGUE_ADVERTISE.optional(),
  SEGUE_COORDINATOR: settings.SEGUE_COORDINATOR.default("127.0.0.1:7070"),
  SEGUE_NAME: settings.SEGUE_NAME.default(`${hostname()}-${process.pid}`),
  SEGUE_ENGINE: settings.SEGUE_ENGINE.default("auto"),
  SEGUE_THREADS: settings.SEGUE_THREADS.default(0),
  SEGUE_GPU: settings.SEGUE_GPU.default("all"),
  SEGUE_NCCL_LIB: settings.SEGUE_NCCL_LIB.optional(),
});
type WorkerSettings = z.output<typeof workerSettings>;

await runService(
  async ({ signal }) => {
    endWithStarter();
    const env = readSettings(workerSettings);
    const logger = createLogger("worker", env.SEGUE_LOG_LEVEL);
    const gpu = env.SEGUE_GPU === "all" ? 0 : env.SEGUE_GPU;
    const options = { engine: env.SEGUE_ENGINE, threads: env.SEGUE_THREADS, gpu, ncclLibrary: env.SEGUE_NCCL_LIB };
    const devices = await probeDevices(options);
    const gpus = devices.gpu?.visible ?? 0;
    if (env.SEGUE_GPU === "all" && gpus > 1) {
      const supervisor = new Supervisor({
        plans: memberPlans(sharedSettings(env), gpus, availableParallelism()),
        program: fileURLToPath(import.meta.url),
        logger,
        graceMs: DRAIN_MS + CLOSE_MS,
        onReady: (addresses) => {
          if (addresses.length > 0) announceReady(addresses.join(","), env.SEGUE_READY_FD);
        },
      });
      return supervisor.run(signal);
    }
    const security = securityFromSettings(env);
    const metrics = await serveProcessMetrics("worker", env.SEGUE_METRICS_LISTEN, security, signal);
    const worker = await Worker.start({
      ...options,
      name: env.SEGUE_NAME,
      version: VERSION,
      listen: env.SEGUE_LISTEN,
      advertise: env.SEGUE_ADVERTISE,
      coordinator: env.SEGUE_COORDINATOR,
      security,
      devices,
      logger,
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

function sharedSettings(env: WorkerSettings) {
  return {
    name: env.SEGUE_NAME,
    listen: env.SEGUE_LISTEN,
    advertise: env.SEGUE_ADVERTISE,
    metricsListen: env.SEGUE_METRICS_LISTEN,
    threads: env.SEGUE_THREADS,
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
