import assert from "node:assert/strict";
import { Counter, Registry } from "prom-client";
import { serveProcessMetrics, startMetricsServer, type ServiceGauge } from "../src/index.js";

describe("startMetricsServer", () => {
  it("serves metrics to those who have the token, and health to everybody", async () => {
    const registry = new Registry();
    new Counter({ name: "segue_steps_total", help: "Steps committed.", registers: [registry] }).inc(3);
    let healthy = true;
    const token = "a-token-of-decent-length";
    const server = await startMetricsServer({ listen: "127.0.0.1:0", registry, isHealthy: () => healthy, token });
    try {
      const get = (path: string, authorization?: string) =>
        fetch(`http://${server.address}${path}`, { headers: authorization ? { authorization } : {} });
      assert.equal((await get("/metrics")).status, 401);
      assert.match(await (await get("/metrics", `Bearer ${token}`)).text(), /^segue_steps_total 3$/m);
      assert.equal((await get("/healthz")).status, 200);
      healthy = false;
      assert.equal((await get("/healthz")).status, 503);
      assert.equal((await get("/other")).status, 404);
    } finally {
      await server.close();
    }
  });

  it("keeps to the rules for listeners", async () => {
    const options = { listen: "0.0.0.0:0", registry: new Registry(), isHealthy: () => true };
    await assert.rejects(startMetricsServer(options), { code: "INSECURE_LISTENER" });
  });
});

describe("serveProcessMetrics", () => {
  it("serves a service's process metrics under its name, and says when it is stopping", async () => {
    const stop = new AbortController();
    const server = await serveProcessMetrics("worker", "127.0.0.1:0", {}, stop.signal);
    assert.ok(server);
    try {
      const text = await (await fetch(`http://${server.address}/metrics`)).text();
      assert.match(text, /process_resident_memory_bytes\{service="worker"\} \d+/);
      stop.abort();
      assert.equal((await fetch(`http://${server.address}/healthz`)).status, 503);
    } finally {
      await server.close();
    }
  });

  it("shows a service's own numbers as they are when it is asked", async () => {
    let steps = new Map([
      ["a", 3],
      ["b", 5],
    ]);
    const gauge: ServiceGauge = {
      name: "job_step",
      help: "Steps.",
      labels: ["job"],
      values: () => Array.from(steps, ([job, value]) => ({ labels: { job }, value })),
    };
    const server = await serveProcessMetrics("coordinator", "127.0.0.1:0", {}, new AbortController().signal, [gauge]);
    assert.ok(server);
    try {
      const lines = async (): Promise<string[]> => {
        const text = await (await fetch(`http://${server.address}/metrics`)).text();
        return text.split("\n").filter((line) => line.startsWith("segue_"));
      };
      assert.deepEqual(await lines(), [
        'segue_job_step{job="a",service="coordinator"} 3',
        'segue_job_step{job="b",service="coordinator"} 5',
      ]);
      steps = new Map([["b", 6]]);
      assert.deepEqual(await lines(), ['segue_job_step{job="b",service="coordinator"} 6']);
    } finally {
      await server.close();
    }
  });

  it("opens nothing without an address", async () => {
    assert.equal(await serveProcessMetrics("worker", undefined, {}, new AbortController().signal), undefined);
  });
});
