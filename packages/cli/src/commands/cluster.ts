import { once } from "node:events";
import { Option, type Command } from "commander";
import { SegueError } from "@segue/core";
import { readSettings, settings } from "@segue/runtime";
import { z } from "zod";
import { startLocalCluster, type LocalCluster, type LocalClusterOptions, type ServiceCrash } from "../cluster/local-cluster.js";
import { addJsonOption } from "../connection.js";
import { gpuNumbers, wholeNumber } from "../numbers.js";
import { Output, type CliRuntime } from "../runtime.js";
import { renderTable } from "../show/table.js";

interface UpOptions {
  readonly workers?: number;
  readonly gpus?: readonly number[];
  readonly dir: string;
  readonly store?: string;
  readonly listen: string;
  readonly dashboardListen: string;
  readonly engine: NonNullable<LocalClusterOptions["engine"]>;
  readonly threads?: number;
  readonly json?: boolean;
}

const clusterSettings = z.object({
  REDIS_URL: settings.REDIS_URL.optional(),
  SEGUE_STORE: settings.SEGUE_STORE.optional(),
  SEGUE_LOG_LEVEL: settings.SEGUE_LOG_LEVEL.default("info"),
});

export function addClusterCommand(program: Command, runtime: CliRuntime): void {
  const cluster = program.command("cluster").description("run all services on this machine");
  addJsonOption(cluster.command("up"))
    .description("start coordinator, workers, evaluator, dashboard and, unless REDIS_URL is set, a private Redis; Ctrl-C stops all")
    .option("--workers <count>", "workers (default: one for each GPU; 2 without)", wholeNumber(1, 64))
    .option("--gpus <numbers>", "GPUs for them, such as 0,2; more workers than GPUs share them in turn (default: all)", gpuNumbers)
    .option("--dir <dir>", "where store, logs and Redis's data go", ".segue")
    .option("--store <dir>", "where jobs and checkpoints go (default: SEGUE_STORE or <dir>/store)")
    .option("--listen <host:port>", "the coordinator's address", "127.0.0.1:7070")
    .option("--dashboard-listen <host:port>", "the dashboard's address", "127.0.0.1:7080")
    .addOption(new Option("--engine <name>", "engine of the workers").choices(["auto", "cuda", "cpu", "tfjs"]).default("auto"))
    .option("--threads <count>", "compute threads of each worker (default: the cores shared out)", wholeNumber(1, 1024))
    .addHelpText(
      "after",
      "\nExamples:\n  segue cluster up\n  segue cluster up --workers 4 --dir /data/segue\n  segue cluster up --gpus 0,2\n",
    )
    .action((options: UpOptions) => clusterUp(options, runtime));
}

async function clusterUp(options: UpOptions, runtime: CliRuntime): Promise<void> {
  const output = new Output(runtime, options.json === true);
  const env = readSettings(clusterSettings, runtime.env);
  const coordinatorDied = new AbortController();
  output.note(`starting; logs go to ${options.dir}/logs`);
  const cluster = await startLocalCluster({
    dir: options.dir,
    workers: options.workers,
    gpus: options.gpus,
    storeDir: options.store ?? env.SEGUE_STORE ?? `${options.dir}/store`,
    coordinatorListen: options.listen,
    dashboardListen: options.dashboardListen,
    engine: options.engine,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    redisUrl: env.REDIS_URL,
    logLevel: env.SEGUE_LOG_LEVEL,
    onCrash: (crash) => {
      runtime.stderr.write(`${crashText(crash)}\n`);
      if (crash.name === "coordinator") coordinatorDied.abort(crash);
    },
  });
  try {
    output.result(addresses(cluster), () => addressTable(cluster));
    output.note("Ctrl-C stops all");
    const end = AbortSignal.any([runtime.signal, coordinatorDied.signal]);
    if (!end.aborted) await once(end, "abort");
    output.note("stopping: the coordinator writes a checkpoint first; Ctrl-C again ends at once");
  } finally {
    const endNow = (): void => cluster.killAll();
    process.once("SIGINT", endNow);
    await cluster.close();
    process.off("SIGINT", endNow);
  }
  if (coordinatorDied.signal.aborted) {
    throw new SegueError("COORDINATOR_CRASHED", "The coordinator ended unexpectedly; the same command goes on where it stood.", {
      status: "ABORTED",
    });
  }
}

export function crashText({ name, exit, logPath, lastLogLines }: ServiceCrash): string {
  const how = exit.signal === null ? `with exit code ${exit.code}` : `by ${exit.signal}`;
  return `${name} ended unexpectedly ${how}; its log, ${logPath}, ends:\n${lastLogLines}`;
}

function addresses(cluster: LocalCluster): Record<string, unknown> {
  const services = cluster.names.map((name) => {
    const { kind, address, pid } = cluster.process(name);
    return { name, kind, address, pid };
  });
  return {
    coordinator: cluster.coordinator,
    dashboard: cluster.dashboard,
    redisUrl: cluster.redisUrl,
    storeDir: cluster.storeDir,
    logsDir: cluster.logsDir,
    services,
  };
}

function addressTable(cluster: LocalCluster): string {
  const rows = [
    ...cluster.names.map((name) => {
      const { kind, address, pid } = cluster.process(name);
      return { name, address: (kind === "dashboard" ? cluster.dashboard : address) ?? "", pid: String(pid) };
    }),
    { name: "redis", address: cluster.redisUrl.replace(/\/\/[^@]*@/, "//"), pid: "" },
    { name: "store", address: cluster.storeDir, pid: "" },
    { name: "logs", address: cluster.logsDir, pid: "" },
  ];
  return renderTable(
    [
      { title: "SERVICE", value: ({ name }) => name },
      { title: "ADDRESS", value: ({ address }) => address },
      { title: "PID", value: ({ pid }) => pid, right: true },
    ],
    rows,
  );
}
