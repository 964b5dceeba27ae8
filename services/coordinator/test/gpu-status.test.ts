import assert from "node:assert/strict";
import { create, GpuLoadSchema, HelloSchema } from "@segue/protocol";
import type { MetricsWriter } from "@segue/runtime";
import { JobMetrics } from "../src/metrics/job-metrics.js";
import { serviceGauges } from "../src/metrics/service-gauges.js";
import { AttachedWorker } from "../src/workers/attached-worker.js";

const GPU = { name: "NVIDIA H200", uuid: "GPU-1", memoryBytes: 140n * 2n ** 30n, ordinal: 1, driverVersion: "580.65.06" };

function attached(workerId: string, hello: object, load?: object): AttachedWorker {
  const worker = new AttachedWorker(workerId, create(HelloSchema, { name: workerId, engines: ["cuda"], ...hello }), {});
  if (load) worker.gpuLoad = create(GpuLoadSchema, load);
  return worker;
}

describe("GPUs of workers in metrics", () => {
  const busy = attached("busy", { gpu: GPU }, { memoryUsedBytes: 2n ** 30n, utilisationPercent: 0, temperatureCelsius: 63 });
  const silent = attached("silent", { gpu: { ...GPU, uuid: "GPU-2" } });
  const none = attached("none", {});

  it("are gauges of what each tells, and nothing of what it does not", () => {
    const gauges = serviceGauges(() => ({ jobs: [], workers: [busy, silent, none] }));
    const valuesOf = (name: string) => gauges.find((gauge) => gauge.name === name)!.values();
    const labels = { worker: "busy", gpu: "GPU-1", name: "NVIDIA H200" };
    assert.deepEqual(valuesOf("worker_gpu_memory_bytes"), [
      { labels, value: 140 * 2 ** 30 },
      { labels: { ...labels, worker: "silent", gpu: "GPU-2" }, value: 140 * 2 ** 30 },
    ]);
    assert.deepEqual(valuesOf("worker_gpu_memory_used_bytes"), [{ labels, value: 2 ** 30 }]);
    assert.deepEqual(valuesOf("worker_gpu_utilisation"), [{ labels, value: 0 }]);
    assert.deepEqual(valuesOf("worker_gpu_temperature_celsius"), [{ labels, value: 63 }]);
  });

  it("are in what Redis is told of a worker", () => {
    const told = new Map<string, { gpu?: object }>();
    const writer = {
      hash: (_key: string, fields: Record<string, string>) => {
        for (const [id, text] of Object.entries(fields)) told.set(id, JSON.parse(text) as { gpu?: object });
      },
    } as unknown as MetricsWriter;
    const metrics = new JobMetrics(writer);
    for (const worker of [busy, silent, none]) metrics.worker(worker, []);
    const known = { name: "NVIDIA H200", ordinal: 1, driverVersion: "580.65.06", memoryBytes: 140 * 2 ** 30 };
    const load = { memoryUsedBytes: 2 ** 30, utilisationPercent: 0, temperatureCelsius: 63 };
    assert.deepEqual(told.get("busy")?.gpu, { ...known, uuid: "GPU-1", ...load });
    assert.deepEqual(told.get("silent")?.gpu, { ...known, uuid: "GPU-2" });
    assert.equal(told.get("none")?.gpu, undefined);
  });
});
