import assert from "node:assert/strict";
import { DEFAULT_SPEC, type JobSpec } from "@segue/core";
import { chooseTransport, type Reach, type Transport } from "../src/run/transport.js";

const sync = (changes: Partial<JobSpec["sync"]> = {}): Pick<JobSpec, "sync"> => ({
  sync: { ...DEFAULT_SPEC.sync, replicas: 1, ...changes },
});
const gpu = (hostId: string, gpuUuid: string): Reach => ({ engine: "cuda", hostId, gpuUuid, ncclVersion: "2.28.9" });
const cpu = (hostId: string): Reach => ({ engine: "cpu", hostId, gpuUuid: "", ncclVersion: "" });
const none: ReadonlySet<Transport> = new Set();

describe("transport of a generation", () => {
  const chosen = (members: readonly Reach[], changes?: Partial<JobSpec["sync"]>, failed = none): string =>
    chooseTransport(sync(changes), members, failed).transport;

  it("is the best that all members share", () => {
    assert.equal(chosen([gpu("a", "1"), gpu("a", "2")]), "ipc");
    assert.equal(chosen([gpu("a", "1"), gpu("a", "1")]), "ipc");
    assert.equal(chosen([cpu("a"), cpu("a")]), "ipc");
    assert.equal(chosen([cpu("a"), cpu("a")], { wire: "bf16" }), "ipc");
    assert.equal(chosen([gpu("a", "1"), gpu("b", "1")]), "nccl");
    assert.equal(chosen([cpu("a"), cpu("b")]), "grpc");
    assert.equal(chosen([gpu("a", "1"), cpu("a")]), "grpc");
    assert.equal(
      chosen([
        { ...cpu("a"), engine: "tfjs" },
        { ...cpu("a"), engine: "tfjs" },
      ]),
      "grpc",
    );
    // Nobody knows where they are.
    assert.equal(chosen([gpu("", "1"), gpu("", "2")]), "nccl");
    assert.equal(chosen([cpu(""), cpu("")]), "grpc");
    assert.equal(chosen([gpu("a", "1"), { ...gpu("b", "2"), ncclVersion: "" }]), "grpc");
  });

  it("is the next one after a failure, and what the job asks for whatever fails", () => {
    assert.equal(chosen([gpu("a", "1"), gpu("a", "2")], {}, new Set(["ipc"])), "nccl");
    // NCCL refuses two ranks on one GPU.
    assert.equal(chosen([gpu("a", "1"), gpu("a", "1")], {}, new Set(["ipc"])), "grpc");
    assert.equal(chosen([gpu("a", "1"), gpu("a", "2")], {}, new Set(["ipc", "nccl"])), "grpc");
    assert.equal(chosen([cpu("a"), cpu("a")], {}, new Set(["ipc"])), "grpc");
    assert.equal(chosen([cpu("a"), cpu("a")], { transport: "ipc" }, new Set(["ipc"])), "ipc");
    assert.equal(chosen([gpu("a", "1"), gpu("a", "2")], { transport: "grpc" }), "grpc");
  });

  it("says why", () => {
    assert.equal(chooseTransport(sync(), [cpu("a"), cpu("b")], none).reason, "the members are on several hosts");
    assert.equal(chooseTransport(sync(), [cpu("a"), cpu("a")], new Set(["ipc"])).reason, "ipc failed");
  });
});
