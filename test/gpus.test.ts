import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { Jobs, type WorkerInfo } from "@segue/protocol";
import { connectClient } from "@segue/runtime";
import { ScriptedCoordinator } from "../services/worker/test/support/scripted-coordinator.js";
import { buildFakeGpus } from "./helpers/fake-library.js";
import { until } from "./helpers/patience.js";

const program = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url));
const WORKER = program("services/worker/dist/main.js");
const SEGUE = program("packages/cli/bin/segue.js");

/** Processes that believe in two GPUs, whose libraries say that they are there and do nothing. */
describe("a GPU a worker", () => {
  let dir: string;
  let env: NodeJS.ProcessEnv;
  const running = new Set<ChildProcess>();

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "segue-gpus-"));
    env = { ...process.env, SEGUE_HEARTBEAT_MS: "5000", LD_LIBRARY_PATH: buildFakeGpus(dir, 2) };
  });

  afterEach(async () => {
    await Promise.all(Array.from(running, (child) => end(child, "SIGTERM")));
  });

  after(() => rm(dir, { recursive: true, force: true }));

  function start(args: readonly string[], more: NodeJS.ProcessEnv = {}): ChildProcess {
    const child = spawn(process.execPath, args, { env: { ...env, ...more }, stdio: ["ignore", "pipe", "pipe"] });
    running.add(child);
    return child;
  }

  async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
    running.delete(child);
    if (child.exitCode === null && child.signalCode === null) {
      child.kill(signal);
      await once(child, "exit");
    }
    return child.exitCode;
  }

  /** Ordinals of the GPUs of so many workers. */
  async function gpusOfCluster(count: number, ...options: string[]): Promise<(number | undefined)[]> {
    const folder = await mkdtemp(join(dir, "cluster-"));
    const anyPort = ["--listen", "127.0.0.1:0", "--dashboard-listen", "127.0.0.1:0"];
    const child = start([SEGUE, "cluster", "up", "--json", "--dir", folder, ...anyPort, ...options]);
    let said = "";
    child.stdout!.on("data", (part: Buffer) => (said += part.toString()));
    const errors = text(child.stderr!);
    const address = await until(
      async () => {
        if (child.exitCode !== null) throw new Error(`${said}${await errors}`);
        return /"coordinator": ?"([^"]+)"/.exec(said)?.[1];
      },
      () => `the cluster's addresses: ${said}`,
    );
    const client = connectClient(Jobs, address);
    let workers: WorkerInfo[] = [];
    try {
      // On a busy machine one may have been silent for so long that it attaches anew.
      const areThere = async (): Promise<boolean> => {
        ({ workers } = await client.listWorkers({}));
        return workers.length === count;
      };
      await until(areThere, () => `${count} workers; there are ${workers.map(({ name }) => name).join(", ")}`);
    } finally {
      client.close();
    }
    assert.equal(await end(child, "SIGINT"), 0);
    return workers.map(({ gpu }) => gpu?.ordinal);
  }

  it("is what a cluster starts: one for each GPU", async () => {
    assert.deepEqual(await gpusOfCluster(2), [0, 1]);
  });

  it("can be chosen, and more workers than GPUs share them in turn", async () => {
    assert.deepEqual(await gpusOfCluster(3, "--workers", "3", "--gpus", "1,0"), [1, 0, 1]);
  });

  it("must be there", async () => {
    await assert.rejects(gpusOfCluster(1, "--gpus", "0,2"), /GPU_NOT_FOUND.*There is no GPU 2 /s);
    await assert.rejects(gpusOfCluster(1, "--gpus", "0", "--engine", "cpu"), /GPU_NOT_FOUND/);
  });

  it("is what a worker process with several starts, as long as it lives", async () => {
    const coordinator = await new ScriptedCoordinator().start();
    try {
      const child = start([WORKER], { SEGUE_NAME: "pod", SEGUE_COORDINATOR: coordinator.address, SEGUE_LISTEN: "127.0.0.1:0" });
      child.stdout!.resume();
      const pids = new Map<string, number>();
      createInterface({ input: child.stderr! }).on("line", (line) => {
        const { event, member, pid } = JSON.parse(line) as { event?: string; member: string; pid: number };
        if (event === "memberStarted") pids.set(member, pid);
      });
      const [first, second] = await Promise.all([coordinator.attached("pod-gpu0"), coordinator.attached("pod-gpu1")]);
      assert.deepEqual([first.hello.gpu?.ordinal, second.hello.gpu?.ordinal], [0, 1]);
      assert.notEqual(first.hello.gpu?.uuid, second.hello.gpu?.uuid);
      assert.equal(first.hello.hostId, second.hello.hostId);
      assert.deepEqual(first.hello.engines.slice(0, 1), ["cuda"]);

      process.kill(pids.get("pod-gpu1")!, "SIGKILL");
      await second.untilEnded();
      const again = await coordinator.attached("pod-gpu1", 2);
      assert.equal(again.hello.gpu?.ordinal, 1);
      assert.equal(first.ended, false);

      const ended = end(child, "SIGTERM");
      await Promise.all([first.next("draining"), again.next("draining")]);
      assert.equal(await ended, 0);
      assert.ok(first.ended && again.ended);
    } finally {
      await coordinator.close();
    }
  });

  it("ends when the process that started it is killed", async () => {
    const coordinator = await new ScriptedCoordinator().start();
    try {
      const child = start([WORKER], { SEGUE_NAME: "pod", SEGUE_COORDINATOR: coordinator.address });
      child.stdout!.resume();
      child.stderr!.resume();
      const streams = await Promise.all([coordinator.attached("pod-gpu0"), coordinator.attached("pod-gpu1")]);
      await end(child, "SIGKILL");
      await Promise.all(streams.map((stream) => stream.untilEnded()));
    } finally {
      await coordinator.close();
    }
  });

  it("is the only one of a worker that was told which", async () => {
    const coordinator = await new ScriptedCoordinator().start();
    try {
      const child = start([WORKER], { SEGUE_NAME: "alone", SEGUE_COORDINATOR: coordinator.address, SEGUE_GPU: "1" });
      child.stdout!.resume();
      child.stderr!.resume();
      const { hello } = await coordinator.attached("alone");
      assert.equal(hello.gpu?.ordinal, 1);
      assert.equal(hello.gpu?.driverVersion, "580.65.06");
      assert.equal(await end(child, "SIGTERM"), 0);
    } finally {
      await coordinator.close();
    }
  });
});
