import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { SegueError } from "@segue/core";
import { createLogger, faultPoint, parseFaults, planFaults } from "@segue/runtime";

describe("faults", () => {
  const logger = createLogger("test", "silent");
  afterEach(() => planFaults([], logger));

  it("a point without a plan does nothing", () => {
    assert.equal(faultPoint("worker.computing", 3), undefined);
  });

  it("a fault happens once, at its point, not before its step", async () => {
    planFaults([{ point: "worker.stepBegins", fromStep: 5, action: "drop" }], logger);
    assert.equal(faultPoint("worker.computing", 9), undefined);
    assert.equal(faultPoint("worker.stepBegins", 4), undefined);
    await assert.rejects(
      async () => faultPoint("worker.stepBegins", 7),
      (error) => error instanceof SegueError && error.code === "FAULT_INJECTED" && error.status === "UNAVAILABLE",
    );
    assert.equal(faultPoint("worker.stepBegins", 7), undefined);
  });

  it("a delay waits as long as it says", async () => {
    planFaults([{ point: "worker.joined", action: "delay", afterMs: 60 }], logger);
    const startedAtMs = performance.now();
    await faultPoint("worker.joined");
    assert.ok(performance.now() - startedAtMs >= 55);
  });

  it("a hold waits for its file", async () => {
    const folder = mkdtempSync(join(tmpdir(), "segue-hold-"));
    const untilFile = join(folder, "go");
    planFaults([{ point: "worker.joined", action: "hold", untilFile }], logger);
    let isOver = false;
    const held = faultPoint("worker.joined")?.then(() => (isOver = true));
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(isOver, false);
    writeFileSync(untilFile, "");
    await held;
    rmSync(folder, { recursive: true });
  });

  it("kill ends the process by SIGKILL at once", () => {
    const program = `
      import { createLogger, faultPoint, parseFaults, planFaults } from "@segue/runtime";
      planFaults(parseFaults(process.env.SEGUE_FAULTS), createLogger("test", "silent"));
      await faultPoint("coordinator.roundReported", 12);
      console.log("still here");`;
    const { signal, stdout } = spawnSync(
      process.execPath,
      ["--import", "tsx", "--conditions=segue-source", "--input-type=module", "-e", program],
      {
        cwd: fileURLToPath(new URL("..", import.meta.url)),
        env: { ...process.env, SEGUE_FAULTS: '[{"point":"coordinator.roundReported","fromStep":12,"action":"kill"}]' },
        encoding: "utf8",
      },
    );
    assert.equal(signal, "SIGKILL");
    assert.equal(stdout, "");
  });

  it("what is not a plan is refused with an example", () => {
    for (const text of [
      "{",
      "{}",
      '[{"point":"worker.naps","action":"kill"}]',
      '[{"point":"worker.joined","action":"kill","x":1}]',
      '[{"point":"worker.joined","action":"hold"}]',
      '[{"point":"worker.joined","action":"kill","untilFile":"x"}]',
    ]) {
      assert.throws(
        () => parseFaults(text),
        (error) => error instanceof SegueError && error.code === "FAULTS_INVALID",
        text,
      );
    }
    assert.deepEqual(parseFaults('[{"point":"worker.joined","action":"kill"}]'), [{ point: "worker.joined", action: "kill" }]);
  });
});
