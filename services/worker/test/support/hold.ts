import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Attached } from "./scripted-coordinator.js";
import { HOLD_VARIABLE } from "./tokens.js";

/** Holds fake engines at a HELD_TOKEN until {@link release}; make it before the workers start. */
export class Hold {
  readonly #folder = mkdtempSync(join(tmpdir(), "segue-hold-"));
  readonly #file = join(this.#folder, "go");

  constructor() {
    process.env[HOLD_VARIABLE] = this.#file;
  }

  release(): void {
    writeFileSync(this.#file, "");
  }

  close(): void {
    this.release();
    delete process.env[HOLD_VARIABLE];
    rmSync(this.#folder, { recursive: true });
  }
}

/** Waits until the heartbeats say that a worker computes, or that it does not. */
export async function untilComputing(stream: Attached, isComputing: boolean): Promise<void> {
  while (((await stream.next("heartbeat")).step !== 0) !== isComputing);
}
