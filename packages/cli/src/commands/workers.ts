import type { Command } from "commander";
import { SegueError } from "@segue/core";
import { WorkerState, type WorkerInfo } from "@segue/protocol";
import { addConnectionOptions, withConnection, type ConnectionOptions } from "../connection.js";
import type { CliRuntime } from "../runtime.js";
import { gpuColumns, gpuView, type GpuView } from "../show/gpu-columns.js";
import { formatBytes, formatStepMs } from "../show/format.js";
import { stepTimesView, type StepTimesView } from "../show/job-view.js";
import { stepTimeColumns } from "../show/step-time-columns.js";
import { renderTable, type Column } from "../show/table.js";

/** A worker's fields as JSON can carry them. */
interface WorkerView extends Omit<
  WorkerInfo,
  "$typeName" | "$unknown" | "state" | "rssBytes" | "seenAtMs" | "stepTimes" | "gpu" | "gpuLoad"
> {
  readonly state: string;
  readonly rssBytes: number;
  readonly seenAtMs: number;
  readonly stepTimes?: StepTimesView;
  readonly gpu?: GpuView;
}

export function addWorkersCommand(program: Command, runtime: CliRuntime): void {
  const workers = program
    .command("workers")
    .description("list the attached workers, or let one leave")
    .addHelpText("after", "\nExamples:\n  segue workers\n  segue workers drain gpu-3-5e1f9c\n");

  addConnectionOptions(workers.command("list", { isDefault: true }))
    .description("list the attached workers")
    .addHelpText("after", "\nExamples:\n  segue workers\n  segue workers list --json\n")
    .action((options: ConnectionOptions) =>
      withConnection(runtime, options, async ({ connection, output }) => {
        const views = (await connection.jobs.listWorkers({})).workers.map(workerView);
        output.result(views, () => (views.length === 0 ? "no worker is attached" : renderTable(columnsFor(views), views)));
      }),
    );

  addConnectionOptions(workers.command("drain <worker>"))
    .description("let a worker leave its job after its round; it gets no other job until it attaches again")
    .addHelpText(
      "after",
      "\nOnce it is listed as drained its process can be stopped without any step being repeated.\n\nExample:\n  segue workers drain gpu-3-5e1f9c\n",
    )
    .action((workerId: string, options: ConnectionOptions) =>
      withConnection(runtime, options, async ({ connection, output }) => {
        const { worker } = await connection.jobs.drainWorker({ workerId });
        if (!worker) throw new SegueError("INTERNAL", "The coordinator answered without a worker.", { status: "INTERNAL" });
        const view = workerView(worker);
        output.result(view, () => `${view.workerId} ${view.state}`);
      }),
    );
}

const columnsFor = (views: readonly WorkerView[]): Column<WorkerView>[] => [
  { title: "WORKER", value: ({ workerId }) => workerId },
  { title: "STATE", value: ({ state, straggler }) => (straggler ? `${state}, slow` : state) },
  { title: "JOB", value: ({ jobId }) => jobId },
  { title: "SHARDS", value: ({ shards }) => (shards.length === 0 ? "" : `${shards[0]}-${shards.at(-1)}`), right: true },
  { title: "MS A SHARD", value: ({ shardMs }) => formatStepMs(shardMs || undefined), right: true },
  ...stepTimeColumns,
  { title: "MEMORY", value: ({ rssBytes }) => formatBytes(rssBytes), right: true },
  ...(views.some(({ gpu }) => gpu) ? gpuColumns : []),
  { title: "DEVICE", value: ({ device }) => device },
];

function workerView(worker: WorkerInfo): WorkerView {
  const { workerId, name, jobId, shards, step, engines, device, shardMs, straggler, tensorsAddress, hostId, ncclVersion } = worker;
  return {
    workerId,
    name,
    state: WorkerState[worker.state].toLowerCase(),
    jobId,
    shards,
    step,
    engines,
    device,
    rssBytes: Number(worker.rssBytes),
    shardMs,
    ...stepTimesView(worker.stepTimes),
    straggler,
    seenAtMs: Number(worker.seenAtMs),
    tensorsAddress,
    ...gpuView(worker),
    hostId,
    ncclVersion,
  };
}
