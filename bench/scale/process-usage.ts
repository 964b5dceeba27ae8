import { readFile } from "node:fs/promises";

export interface ProcessUsage {
  readonly rssBytes: number;
  /** User and system time since the process began. */
  readonly cpuSeconds: number;
}

/** USER_HZ: the unit of /proc/PID/stat's times on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** What Linux says of a process. */
export async function processUsage(pid: number): Promise<ProcessUsage> {
  const [stat, status] = await Promise.all([readFile(`/proc/${pid}/stat`, "utf8"), readFile(`/proc/${pid}/status`, "utf8")]);
  // The name in parentheses may hold anything; user and system time are the 14th and 15th field, the 12th and 13th after it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(fields[11]) + Number(fields[12]);
  return { rssBytes: 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]), cpuSeconds: ticks / TICKS_PER_SECOND };
}
