import type { JobMemory, MemoryPart, ProcessMemory } from "@segue/engine";
import { formatBytes, formatCount } from "./format.js";
import { renderTable, type Column } from "./table.js";

/** One line: "a worker needs 616 MiB (1 worker, engine cpu), the coordinator 149 MiB". */
export function memoryLine({ worker, coordinator, workers, engine, caveat }: JobMemory): string {
  const shared = `${workers} ${workers === 1 ? "worker" : "workers"}, engine ${engine}`;
  const atLeast = caveat === "" ? "" : "at least ";
  return `memory: a worker needs ${atLeast}${total(worker)} (${shared}), the coordinator ${total(coordinator)}`;
}

/** What a job needs on a worker if its members share the optimizer's work out. */
export function shardedLine({ worker }: JobMemory): string {
  return `With sync.optimizer sharded each worker needs ${total(worker)}.`;
}

/** What a worker and the coordinator hold, part by part. */
export function memoryReport(memory: JobMemory): string {
  const { parameters, workers, engine, threads, worker, coordinator, caveat } = memory;
  const threadCount = `${threads} ${threads === 1 ? "thread" : "threads"}`;
  return [
    `${formatCount(parameters)} parameters, ${workers} ${workers === 1 ? "worker" : "workers"}, engine ${engine} with ${threadCount}`,
    "",
    `Each worker at its peak: ${total(worker)}`,
    partsTable(worker),
    "",
    `The coordinator: ${total(coordinator)}`,
    partsTable(coordinator),
    ...(caveat === "" ? [] : ["", `This is ${caveat}.`]),
  ].join("\n");
}

function total({ hostBytes, deviceBytes }: ProcessMemory): string {
  return deviceBytes === 0 ? formatBytes(hostBytes) : `${formatBytes(hostBytes)} and ${formatBytes(deviceBytes)} of GPU memory`;
}

function partsTable({ parts, hostBytes, deviceBytes }: ProcessMemory): string {
  const ofPlace = { host: hostBytes, device: deviceBytes };
  const columns: Column<MemoryPart>[] = [
    { title: "PART", value: ({ name, place }) => (place === "device" ? `${name} (GPU)` : name) },
    { title: "BYTES", value: ({ bytes }) => formatBytes(bytes), right: true },
    { title: "SHARE", value: ({ bytes, place }) => `${((100 * bytes) / ofPlace[place]).toFixed(1)} %`, right: true },
    { title: "HOW", value: ({ formula }) => formula },
  ];
  return renderTable(columns, parts);
}
