import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { LocalCluster } from "@segue/cli";
import type { Fault } from "@segue/runtime";
import type { Scratch } from "./clusters.js";
import { waitForJob } from "./jobs.js";

/**
 * Holds a job in the middle, however fast or slow the machine is: `faults: { coordinator: [hold.fault] }` of a cluster. Its workers have
 * been told to run a round; nothing is committed until {@link release}.
 */
export class Hold {
  readonly fault: Fault;
  readonly #step: number;
  readonly #file: string;

  constructor(scratch: Scratch, step: number) {
    this.#step = step;
    this.#file = join(scratch.folder(), "go");
    this.fault = { point: "coordinator.roundStarted", fromStep: step, action: "hold", untilFile: this.#file };
  }

  /** Waits until the job has come to the step. */
  reached(cluster: LocalCluster, jobId: string): ReturnType<typeof waitForJob> {
    return waitForJob(cluster, jobId, ({ step }) => step >= this.#step);
  }

  release(): void {
    writeFileSync(this.#file, "");
  }
}
