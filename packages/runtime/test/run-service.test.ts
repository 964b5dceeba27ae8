import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { until } from "../../../test/helpers/patience.js";

describe("runService", () => {
  const children: ChildProcess[] = [];
  afterEach(() => children.splice(0).forEach((child) => child.kill("SIGKILL")));

  /** Runs a service whose main is the given function body; fd 3 is its SEGUE_READY_FD. */
  const service = (body: string) => {
    const module = join(import.meta.dirname, "../src/index.ts");
    const script = `const { runService, announceReady } = await import(${JSON.stringify(module)});
      const { SegueError } = await import("@segue/core");
      await runService(async ({ signal, logger }) => { ${body} }, { service: "probe" });`;
    const args = ["--import=tsx", "--conditions=segue-source", "--input-type=module", "-e", script];
    const child = spawn(process.execPath, args, {
      cwd: join(import.meta.dirname, ".."),
      env: { ...process.env, SEGUE_READY_FD: "3" },
      stdio: ["ignore", "pipe", "pipe", "pipe"],
    });
    children.push(child);
    let log = "";
    child.stderr?.on("data", (text: Buffer) => (log += text.toString()));
    const exited = once(child, "exit") as Promise<[number | null, string | null]>;
    return { child, ready: firstText(child.stdio[3] as Readable), exited, log: () => log };
  };
  const UNTIL_STOPPED = `announceReady("127.0.0.1:1"); const alive = setInterval(() => {}, 1000);
    await new Promise((resolve) => signal.addEventListener("abort", resolve)); clearInterval(alive);`;

  it("announces readiness, stops at SIGTERM and exits with 0", async () => {
    const { child, ready, exited } = service(UNTIL_STOPPED);
    assert.deepEqual(JSON.parse(await ready), { ready: true, address: "127.0.0.1:1" });
    child.kill("SIGTERM");
    assert.deepEqual(await exited, [0, null]);
  });

  it("exits at once at the second signal", async () => {
    const { child, ready, exited, log } = service(`${UNTIL_STOPPED} setInterval(() => {}, 1000); await new Promise(() => {});`);
    await ready;
    child.kill("SIGINT");
    await until(() => log().includes("stopping"), "the service to stop");
    child.kill("SIGINT");
    assert.deepEqual(await exited, [130, null]);
  });

  it("exits with 1 and the message for a SegueError, with 70 for a bug", async () => {
    const mendable = service(`throw new SegueError("REDIS_MISSING", "Install redis-server.");`);
    assert.deepEqual(await mendable.exited, [1, null]);
    assert.match(mendable.log(), /"code":"REDIS_MISSING".*Install redis-server\./);
    const bug = service(`Promise.reject(new Error("oops")); await new Promise((resolve) => setTimeout(resolve, 5000));`);
    assert.deepEqual(await bug.exited, [70, null]);
    assert.match(bug.log(), /oops/);
  });

  it("redacts secrets in the log", async () => {
    const { exited, log } = service(`logger.info({ token: "hush", nested: { authorization: "hush" } }, "hello");`);
    await exited;
    assert.match(log(), /hello/);
    assert.doesNotMatch(log(), /hush/);
  });
});

async function firstText(stream: Readable): Promise<string> {
  const [text] = (await once(stream, "data")) as [Buffer];
  return text.toString();
}
