import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { SegueError } from "@segue/core";
import type { Logger } from "../logger.js";
import { takeFault, type Fault, type FaultPoint } from "./fault-plan.js";

// A plan belongs to the process, as its death does: points lie deep in code that must not carry it along.
let plan: readonly Fault[] = [];
let log: Logger | undefined;

const HOLD_POLL_MS = 20;

/** Sets what this process shall suffer; replaces an earlier plan. An empty one ends all faults. */
export function planFaults(faults: readonly Fault[], logger: Logger): void {
  plan = faults;
  log = logger;
  if (faults.length > 0) logger.warn({ event: "faultsPlanned", faults }, "SEGUE_FAULTS is set: this process will fail on purpose");
}

/**
 * A named moment at which a test can make this process fail. Without a plan it does nothing.
 * @param step optimizer steps applied at this moment, where there is such a number
 * @throws SegueError FAULT_INJECTED (UNAVAILABLE, retryable) when the plan says `drop`
 */
export function faultPoint(point: FaultPoint, step?: number): Promise<void> | undefined {
  if (plan.length === 0) return undefined;
  const { fault, rest } = takeFault(plan, point, step);
  if (!fault) return undefined;
  plan = rest;
  log?.warn({ event: "fault", ...fault, step }, "a planned fault");
  return suffer(fault);
}

async function suffer({ point, action, afterMs = 0, untilFile = "" }: Fault): Promise<void> {
  switch (action) {
    case "kill":
      if (afterMs === 0) process.kill(process.pid, "SIGKILL");
      else setTimeout(() => process.kill(process.pid, "SIGKILL"), afterMs);
      return;
    case "delay":
      await sleep(afterMs);
      return;
    case "hold":
      while (!existsSync(untilFile)) await sleep(HOLD_POLL_MS);
      return;
    case "drop":
      throw new SegueError("FAULT_INJECTED", `SEGUE_FAULTS dropped this at ${point}.`, { status: "UNAVAILABLE", retryable: true });
  }
}
