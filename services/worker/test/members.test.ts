import assert from "node:assert/strict";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { createLogger } from "@segue/runtime";
import { memberPlans } from "../src/members/member-plans.js";
import { Supervisor } from "../src/members/supervisor.js";

describe("members of a worker process with several GPUs", () => {
  it("have names, ports, GPUs and threads of their own", () => {
    const shared = { name: "pod-7", listen: "0.0.0.0:7071", advertise: "[fd00::1]:7071", metricsListen: "127.0.0.1:0", threads: 0 };
    const [first, second, ...rest] = memberPlans(shared, 2, 9);
    assert.deepEqual(rest, []);
    const common = { SEGUE_ENGINE: "cuda", SEGUE_THREADS: "4", SEGUE_METRICS_LISTEN: "127.0.0.1:0" };
    assert.deepEqual(first, {
      name: "pod-7-gpu0",
      env: {
        ...{ ...common, SEGUE_NAME: "pod-7-gpu0", SEGUE_GPU: "0" },
        ...{ SEGUE_LISTEN: "0.0.0.0:7071", SEGUE_ADVERTISE: "[fd00::1]:7071" },
      },
    });
    assert.deepEqual(second, {
      name: "pod-7-gpu1",
      env: {
        ...{ ...common, SEGUE_NAME: "pod-7-gpu1", SEGUE_GPU: "1" },
        ...{ SEGUE_LISTEN: "0.0.0.0:7072", SEGUE_ADVERTISE: "[fd00::1]:7072" },
      },
    });
  });

  it("leave what was not set, and threads that were", () => {
    const [plan] = memberPlans({ name: "n".repeat(100), listen: "127.0.0.1:0", threads: 3 }, 8, 64);
    assert.equal(plan?.env["SEGUE_THREADS"], "3");
    assert.equal(plan?.env["SEGUE_ADVERTISE"], undefined);
    assert.ok(plan.name.length <= 100);
  });

  const supervise = (names: readonly string[], signal: AbortSignal) => {
    const answers = new EventTarget();
    const supervisor = new Supervisor({
      plans: names.map((name) => ({ name, env: { SEGUE_NAME: name } })),
      program: fileURLToPath(new URL("./support/member-program.mjs", import.meta.url)),
      logger: createLogger("test", "silent"),
      graceMs: 600_000,
      onReady: (addresses) => answers.dispatchEvent(new CustomEvent("ready", { detail: addresses })),
    });
    const ready = once(answers, "ready").then(([event]: unknown[]) => (event as CustomEvent<readonly string[]>).detail);
    return { ready, done: supervisor.run(signal) };
  };

  it("go on without one that cannot work, and end with the signal", async () => {
    const stop = new AbortController();
    const { ready, done } = supervise(["refused-0", "good-1", "good-2"], stop.signal);
    assert.deepEqual(await ready, ["good-1", "good-2"]);
    stop.abort();
    await done;
  });

  it("fail together when none of them can work", async () => {
    const { done } = supervise(["refused-0", "refused-1"], new AbortController().signal);
    await assert.rejects(done, { code: "MEMBERS_FAILED" });
  });
});
