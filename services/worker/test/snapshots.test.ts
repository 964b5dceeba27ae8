import assert from "node:assert/strict";
import { setFloats } from "@segue/core";
import { bytesAt, TensorRegistry, type Handlers, type Tensors } from "@segue/protocol";
import type { ModelVectors } from "../src/compute/calls.js";
import { Snapshots } from "../src/job/snapshots.js";
import { PullCounter } from "../src/tensors/pull-counter.js";

describe("snapshots", () => {
  const sizes = { jobId: "j", parameters: 5, vectors: 3, lanesPerShard: 1, laneStateFloats: 4, pageFloats: 2 };
  let registry: TensorRegistry;
  let pulls: PullCounter;
  let snapshots: Snapshots;

  beforeEach(() => {
    registry = new TensorRegistry();
    pulls = new PullCounter();
    snapshots = new Snapshots(registry, pulls, sizes);
  });

  function add(step: number): ModelVectors {
    const model = snapshots.modelBuffer();
    snapshots.add({ step, model, states: new Map([[5, snapshots.statesBuffer()]]), digest: "" });
    return model;
  }

  it("are published while they are kept", () => {
    add(2);
    assert.deepEqual(registry.get("job/j/snapshot/2/model")?.shape, [3, 5]);
    assert.deepEqual(registry.get("job/j/snapshot/2/states/5")?.shape, [1, 4]);
    snapshots.retain((step) => step > 2);
    assert.equal(registry.has("job/j/snapshot/2/model"), false);
    assert.equal(registry.has("job/j/snapshot/2/states/5"), false);
    assert.equal(snapshots.at(2), undefined);
  });

  it("lie in pages in shared memory, each vector in its own, and are offered as one tensor", () => {
    const model = snapshots.modelBuffer();
    assert.deepEqual(
      model.map(({ pages }) => pages.map(({ length }) => length)),
      [0, 1, 2].map(() => [2, 2, 1]),
    );
    assert.ok(model.every(({ pages }) => pages.every(({ buffer }) => buffer instanceof SharedArrayBuffer)));
    model.forEach((vector, v) =>
      setFloats(
        vector,
        Float32Array.from({ length: 5 }, (_, i) => 10 * v + i),
        0,
      ),
    );
    snapshots.add({ step: 1, model, states: new Map(), digest: "" });
    const bytes = bytesAt(registry.get("job/j/snapshot/1/model")!, 12, 40);
    assert.deepEqual([...new Float32Array(bytes.slice().buffer)], [3, 4, 10, 11, 12, 13, 14, 20, 21, 22]);
  });

  it("offer slices of moments, added later as well, and use memory of their lengths again while those last", () => {
    const [own, copy] = [
      { begin: 0, end: 3 },
      { begin: 3, end: 5 },
    ].map((slice) => snapshots.momentsBuffer(slice));
    snapshots.add({ step: 1, model: snapshots.modelBuffer(), states: new Map(), moments: [own!], digest: "" });
    setFloats(copy!.second, Float32Array.of(8, 9), 0);
    snapshots.addMoments(1, copy!);
    assert.deepEqual(registry.get("job/j/snapshot/1/moments/0-3")?.shape, [2, 3]);
    const bytes = bytesAt(registry.get("job/j/snapshot/1/moments/3-5")!, 0, 16);
    assert.deepEqual([...new Float32Array(bytes.slice().buffer)], [0, 0, 8, 9]);
    snapshots.retain(() => false);
    assert.equal(registry.has("job/j/snapshot/1/moments/3-5"), false);
    const again = snapshots.momentsBuffer({ begin: 1, end: 3 });
    assert.deepEqual(new Set([again.first, again.second]), new Set([copy!.first, copy!.second]));
    snapshots.forgetSlices();
    assert.ok(![own!.first, own!.second].includes(snapshots.momentsBuffer({ begin: 0, end: 3 }).first));
  });

  it("give their memory to later ones", () => {
    const first = add(0);
    snapshots.retain(() => false);
    assert.deepEqual(new Set(snapshots.modelBuffer()), new Set(first));
  });

  it("take back memory that was never published", () => {
    const model = snapshots.modelBuffer();
    const states = new Map([[0, snapshots.statesBuffer()]]);
    snapshots.giveBack({ model, states });
    assert.deepEqual(new Set(snapshots.modelBuffer()), new Set(model));
    assert.equal(snapshots.statesBuffer(), states.get(0));
  });

  it("keep their memory while somebody pulls it", async () => {
    const first = add(0);
    let finish = (): void => undefined;
    const handlers: Handlers<typeof Tensors> = {
      async *pull() {
        yield {};
        await new Promise<void>((resolve) => (finish = resolve));
      },
      async *pullSeries() {},
    };
    const [request, context] = [{ ref: "job/j/snapshot/0/model" }, {}] as unknown as Parameters<typeof handlers.pull>;
    const responses = pulls.counting(handlers).pull(request, context);
    const pull = responses[Symbol.asyncIterator]();
    await pull.next();
    snapshots.retain(() => false);
    assert.ok(snapshots.modelBuffer().every((vector) => !first.includes(vector)));
    const ended = pull.next();
    await new Promise((resolve) => setImmediate(resolve));
    finish();
    await ended;
    assert.deepEqual(new Set(snapshots.modelBuffer()), new Set(first));
  });
});
