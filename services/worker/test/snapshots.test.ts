import assert from "node:assert/strict";
import { TensorRegistry, type Handlers, type Tensors } from "@segue/protocol";
import { Snapshots } from "../src/job/snapshots.js";
import { PullCounter } from "../src/tensors/pull-counter.js";

describe("snapshots", () => {
  const sizes = { jobId: "j", parameters: 2, vectors: 3, lanesPerShard: 1, laneStateFloats: 4 };
  let registry: TensorRegistry;
  let pulls: PullCounter;
  let snapshots: Snapshots;

  beforeEach(() => {
    registry = new TensorRegistry();
    pulls = new PullCounter();
    snapshots = new Snapshots(registry, pulls, sizes);
  });

  function add(step: number): Float32Array {
    const model = snapshots.modelBuffer();
    snapshots.add({ step, model, states: new Map([[5, snapshots.statesBuffer()]]), digest: "" });
    return model;
  }

  it("are published while they are kept", () => {
    add(2);
    assert.deepEqual(registry.get("job/j/snapshot/2/model")?.shape, [3, 2]);
    assert.deepEqual(registry.get("job/j/snapshot/2/states/5")?.shape, [1, 4]);
    snapshots.retain((step) => step > 2);
    assert.equal(registry.has("job/j/snapshot/2/model"), false);
    assert.equal(registry.has("job/j/snapshot/2/states/5"), false);
    assert.equal(snapshots.at(2), undefined);
  });

  it("give their memory to later ones", () => {
    const first = add(0);
    snapshots.retain(() => false);
    assert.equal(snapshots.modelBuffer(), first);
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
    assert.notEqual(snapshots.modelBuffer(), first);
    const ended = pull.next();
    await new Promise((resolve) => setImmediate(resolve));
    finish();
    await ended;
    assert.equal(snapshots.modelBuffer(), first);
  });
});
