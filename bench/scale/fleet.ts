import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { JobSpec } from "@segue/core";
import type { ShardTally, WorkerTally } from "./simulated-worker.js";

export interface ProcessSettings {
  readonly coordinator: string;
  readonly names: readonly string[];
  readonly spec: Pick<JobSpec, "batch" | "model">;
  readonly stepMs: number;
}

export interface ProcessReport extends Readonly<WorkerTally> {
  /** Lane states served. */
  readonly pulls: number;
  readonly shards: readonly ShardTally[];
}

export interface FleetOptions {
  readonly coordinator: string;
  readonly workers: number;
  readonly processes: number;
  readonly spec: Pick<JobSpec, "batch" | "model">;
  /** How long a step pretends to take. */
  readonly stepMs: number;
}

const PROGRAM = fileURLToPath(new URL("simulated-process.ts", import.meta.url));

/** Simulated workers in processes of their own, so that what they cost is not what the coordinator costs. */
export class Fleet {
  readonly #children: readonly ChildProcess[];

  private constructor(children: readonly ChildProcess[]) {
    this.#children = children;
  }

  /** Starts the processes and waits until the coordinator has welcomed every worker. */
  static async start({ coordinator, workers, processes, spec, stepMs }: FleetOptions): Promise<Fleet> {
    const children = Array.from({ length: processes }, (_, process) => {
      const names = Array.from({ length: workers }, (_, worker) => `simulated-${worker}`).filter(
        (_, i) => i % processes === process,
      );
      const settings: ProcessSettings = { coordinator, names, spec, stepMs };
      // The parent's loader and conditions (tsx, segue-source) come along in execArgv.
      return fork(PROGRAM, [JSON.stringify(settings)]);
    });
    const fleet = new Fleet(children);
    try {
      await Promise.all(children.map((child) => answer(child)));
      return fleet;
    } catch (error) {
      await fleet.close();
      throw error;
    }
  }

  get pids(): number[] {
    return this.#children.map(({ pid }) => pid ?? -1);
  }

  /** Of all processes together; lateMs is the worst since the last report. */
  async report(): Promise<ProcessReport> {
    const reports = await Promise.all(
      this.#children.map(async (child) => {
        const reply = answer(child);
        child.send("report");
        return (await reply) as ProcessReport;
      }),
    );
    const sum = (key: "segments" | "received" | "sent" | "pulls"): number => reports.reduce((total, part) => total + part[key], 0);
    return {
      segments: sum("segments"),
      received: sum("received"),
      sent: sum("sent"),
      pulls: sum("pulls"),
      lateMs: Math.max(...reports.map(({ lateMs }) => lateMs)),
      rounds: Math.min(...reports.map(({ rounds }) => rounds)),
      generations: Math.max(...reports.map(({ generations }) => generations)),
      faults: reports.flatMap(({ faults }) => faults),
      shards: reports.flatMap(({ shards }) => shards).sort((a, b) => a.shard - b.shard),
    };
  }

  /** Detaches every worker. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(
      this.#children.map(async (child) => {
        if (child.exitCode !== null || child.signalCode !== null) return;
        const exited = once(child, "exit");
        if (child.connected) child.disconnect();
        await exited;
      }),
    );
  }
}

async function answer(child: ChildProcess): Promise<unknown> {
  const over = new AbortController();
  try {
    const exited = once(child, "exit", { signal: over.signal }).then(([code]) => {
      throw new Error(`a process of simulated workers ended with exit code ${String(code)}`);
    });
    exited.catch(() => undefined);
    const [message] = (await Promise.race([once(child, "message", { signal: over.signal }), exited])) as [unknown];
    return message;
  } finally {
    over.abort();
  }
}
