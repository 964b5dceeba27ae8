import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Scratch } from "../helpers/clusters.js";
import { exactnessSpec, undisturbedDigest } from "../helpers/disturbed.js";
import type { JobRow } from "../helpers/jobs.js";
import { until } from "../helpers/patience.js";
import { Namespaces } from "../helpers/namespaces.js";

const root = join(import.meta.dirname, "../..");
const isFull = process.env["EXACTNESS"] === "full";

describe("exactness: a real partition between two workers", () => {
  const scratch = new Scratch();
  const processes: ChildProcess[] = [];
  let hosts: Namespaces | undefined;

  before(function () {
    if (!isFull || !Namespaces.available) {
      console.log(`      skipped: it runs in npm run test:exactness, as root, with iproute2`);
      this.skip();
    }
  });
  afterEach(async () => {
    for (const child of processes.splice(0)) {
      const ended = once(child, "exit");
      if (child.exitCode === null && child.signalCode === null && child.kill("SIGKILL")) await ended;
    }
    hosts?.close();
    await scratch.close();
  });

  it("ten seconds in which two hosts do not reach each other change nothing", async () => {
    const undisturbed = await undisturbedDigest(scratch);
    const folder = scratch.folder();
    hosts = new Namespaces(["c", "w1", "w2"]);
    const on = hosts;
    const addresses = ["c", "w1", "w2"].map((host) => on.address(host));
    const segue = join(root, "packages/cli/bin/segue.js");
    execFileSync(process.execPath, [segue, "certs", join(folder, "certs"), "--host", ...addresses]);
    const security = {
      SEGUE_TLS_CERT: join(folder, "certs/server.pem"),
      SEGUE_TLS_KEY: join(folder, "certs/server-key.pem"),
      SEGUE_TLS_CA: join(folder, "certs/ca.pem"),
      SEGUE_TOKEN_FILE: join(folder, "certs/token"),
    };
    const coordinator = `${on.address("c")}:7070`;
    const env = { ...process.env, ...security, SEGUE_COORDINATOR: coordinator, REDIS_URL: "" };
    const start = (host: string, kind: string, own: Record<string, string>): void => {
      const [file = "", ...args] = on.on(host, process.execPath, join(root, `services/${kind}/dist/main.js`));
      const log = openSync(join(folder, `${host}.log`), "a");
      processes.push(spawn(file, args, { env: { ...env, ...own }, stdio: ["ignore", log, log] }));
    };
    const ask = <T>(...args: string[]): T => {
      const [file = "", ...command] = on.on("c", process.execPath, segue, ...args, "--json");
      return JSON.parse(execFileSync(file, command, { env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })) as T;
    };
    const jobUntil = (done: (job: JobRow) => boolean): Promise<true> =>
      until(() => done(ask<JobRow>("job", jobId)), `the job; see ${folder}`, 200);

    start("c", "coordinator", { SEGUE_LISTEN: coordinator, SEGUE_STORE: join(folder, "store") });
    for (const host of ["w1", "w2"]) {
      start(host, "worker", {
        SEGUE_LISTEN: `${on.address(host)}:7100`,
        SEGUE_NAME: host,
        SEGUE_ENGINE: "cpu",
        SEGUE_THREADS: "1",
      });
    }
    writeFileSync(join(folder, "job.yaml"), exactnessSpec({ minWorkers: 2, maxWorkers: 2 }));
    const jobId = await submitted();
    await jobUntil(({ step }) => step >= 40);
    on.cut("w1", "w2");
    const atCut = ask<JobRow>("job", jobId).step;
    await sleep(10_000);
    const after = ask<JobRow>("job", jobId);
    // Steps already exchanged may still be committed, no others.
    assert.ok(after.step <= atCut + 16, `${atCut} to ${after.step} without a network between the workers`);
    on.heal("w1", "w2");
    await jobUntil(({ phase }) => phase === "SUCCEEDED");
    const [newest] = ask<{ step: number; digest: string }[]>("checkpoints", jobId);
    assert.equal(`${newest?.step} ${newest?.digest}`, undisturbed);

    /** The coordinator may still be starting. */
    async function submitted(): Promise<string> {
      for (let attempt = 0; ; attempt++) {
        try {
          return ask<JobRow>("submit", join(folder, "job.yaml")).jobId;
        } catch (error) {
          if (attempt > 20) throw error;
          await sleep(500);
        }
      }
    }
  });
});
