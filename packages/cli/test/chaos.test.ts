import assert from "node:assert/strict";
import { plannedKill } from "../src/chaos/kill-plan.js";
import { RecoveryWatch } from "../src/chaos/recovery.js";

describe("chaos", () => {
  it("plans deaths that depend on seed and number alone and keep their bounds", () => {
    const plan = { seed: 3, names: ["worker-1", "worker-2", "coordinator"], everyMs: 10_000 };
    const kills = Array.from({ length: 60 }, (_, number) => plannedKill(plan, number));
    assert.deepEqual(plannedKill(plan, 17), kills[17]);
    assert.notDeepEqual(
      kills,
      Array.from({ length: 60 }, (_, number) => plannedKill({ ...plan, seed: 4 }, number)),
    );
    assert.ok(kills.every(({ afterMs, deadMs }) => afterMs >= 5_000 && afterMs <= 15_000 && deadMs >= 0 && deadMs <= 4_000));
    assert.deepEqual(new Set(kills.map(({ name }) => name)), new Set(plan.names));
  });

  it("measures a recovery up to the first step past the death's", () => {
    const watch = new RecoveryWatch();
    watch.reported(40, 1_000);
    watch.died("worker-1", 1_500);
    watch.reported(40, 2_000);
    // A restored coordinator begins behind.
    watch.reported(30, 3_000);
    watch.died("worker-2", 3_500);
    watch.reported(35, 4_000);
    watch.reported(44, 5_000);
    watch.died("worker-1", 6_000);
    assert.deepEqual(watch.deaths, [
      { name: "worker-2", atStep: 30, recoveryMs: 500 },
      { name: "worker-1", atStep: 40, recoveryMs: 3_500 },
      { name: "worker-1", atStep: 44 },
    ]);
  });
});
