import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import koffi from "koffi";
import { NvmlGpu } from "../src/gpu/nvml.js";
import { hostId } from "../src/host-id.js";
import { Worker } from "../src/worker.js";
import { buildFakeNvml } from "../../../test/helpers/fake-library.js";
import { fakeCompute, logger, ScriptedCoordinator } from "./support/scripted-coordinator.js";

/** Offers one of two GPUs, with the UUIDs that the fake NVML knows. */
const gpuCompute = new URL("./support/device-thread.mjs", import.meta.url);
const WHOLE = "GPU-00000000-0000-0000-0000-000000000001";
const INSTANCE = "GPU-00000000-0000-0000-0000-000000000002";

describe("the worker's GPU", () => {
  let folder: string;
  let library: string;
  let users: () => number;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "segue-nvml-"));
    library = buildFakeNvml(folder);
    users = koffi.load(library).func("fakeUsers", "int", []) as () => number;
  });

  after(() => rm(folder, { recursive: true, force: true }));

  it("tells what the GPU of a UUID is doing", async () => {
    const gpu = await NvmlGpu.open(WHOLE, library);
    assert.ok(gpu);
    assert.equal(gpu.driverVersion, "580.65.06");
    assert.deepEqual(await gpu.sample(), { memoryUsedBytes: 80 * 2 ** 30, utilisation: 97, temperatureCelsius: 63 });
    await gpu.close();
    assert.equal(users(), 0);
  });

  it("leaves out what a GPU does not tell, such as an instance of one", async () => {
    const gpu = await NvmlGpu.open(INSTANCE, library);
    assert.ok(gpu);
    assert.deepEqual(await gpu.sample(), { memoryUsedBytes: 2 ** 30, utilisation: undefined, temperatureCelsius: undefined });
    await gpu.close();
  });

  it("is not there for a GPU that it does not know, nor without the library", async () => {
    assert.equal(await NvmlGpu.open("GPU-ffffffff-0000-0000-0000-000000000000", library), undefined);
    assert.equal(users(), 0);
    assert.equal(await NvmlGpu.open(WHOLE, join(folder, "missing.so")), undefined);
  });

  async function attached(computeModule: URL, gpu?: number) {
    const coordinator = await new ScriptedCoordinator().start();
    const worker = await Worker.start({
      ...{ name: "w", version: "0.0.0", listen: "127.0.0.1:0", coordinator: coordinator.address, security: {} },
      ...{ engine: "auto", threads: 1, gpu, nvmlLibrary: library, computeModule, logger },
    });
    try {
      const stream = await coordinator.attached("w");
      const { gpuLoad } = await stream.next("heartbeat");
      return { hello: stream.hello, gpuLoad };
    } finally {
      await worker.close();
      await coordinator.close();
    }
  }

  it("is told when the worker attaches, and what it is doing with every heartbeat", async () => {
    const { hello, gpuLoad } = await attached(gpuCompute, 1);
    const { name, uuid, memoryBytes, ordinal, driverVersion } = hello.gpu!;
    assert.deepEqual(
      { name, uuid, memoryBytes, ordinal, driverVersion },
      { name: "Fake GPU", uuid: WHOLE, memoryBytes: 140n * 2n ** 30n, ordinal: 1, driverVersion: "580.65.06" },
    );
    const { memoryUsedBytes, utilisationPercent, temperatureCelsius } = gpuLoad!;
    assert.deepEqual(
      { memoryUsedBytes, utilisationPercent, temperatureCelsius },
      { memoryUsedBytes: 80n * 2n ** 30n, utilisationPercent: 97, temperatureCelsius: 63 },
    );
  });

  it("is the one of the ordinal it was given", async () => {
    const { hello, gpuLoad } = await attached(gpuCompute, 2);
    assert.equal(hello.gpu!.ordinal, 2);
    // An instance, which tells less.
    assert.equal(gpuLoad!.memoryUsedBytes, 2n ** 30n);
    assert.equal(gpuLoad!.temperatureCelsius, undefined);
  });

  it("is absent where there is none", async () => {
    const { hello, gpuLoad } = await attached(fakeCompute);
    assert.equal(hello.gpu, undefined);
    assert.equal(hello.ncclVersion, "");
    assert.equal(gpuLoad, undefined);
  });

  it("comes with the host that it is on, the same for every process there", async () => {
    const { hello } = await attached(gpuCompute, 1);
    assert.match(hello.hostId, /^[0-9a-f]{32}$/);
    assert.equal(hello.hostId, hostId());
    assert.equal(hostIdIn([]), hello.hostId);
  });

  it("comes with another host from a container that shares no memory with this one", function () {
    const container = ["unshare", "--user", "--map-current-user", "--ipc"];
    if (spawnSync(container[0]!, [...container.slice(1), "true"]).status !== 0) this.skip();
    const elsewhere = hostIdIn(container);
    assert.match(elsewhere, /^[0-9a-f]{32}$/);
    assert.notEqual(elsewhere, hostId());
  });
});

/** What a process says that is started by this command. */
function hostIdIn(command: readonly string[]): string {
  const module = new URL("../src/host-id.ts", import.meta.url).href;
  const program = `import { hostId } from ${JSON.stringify(module)}; process.stdout.write(hostId());`;
  const [file, ...args] = [...command, process.execPath, "--import=tsx", "--input-type=module", "-e", program];
  return execFileSync(file, args, { encoding: "utf8" });
}
