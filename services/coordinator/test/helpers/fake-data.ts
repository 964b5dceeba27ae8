import { laneTokensPerStep, SegueError, type JobSpec } from "@segue/core";
import type { CutStep, DataSource } from "@segue/coordinator";

/** Segments of made-up tokens that depend on step and shard alone; the cursor is the next step. `missing` in data.textField is refused. */
export const fakeData: DataSource = {
  async prepare(spec) {
    if (spec.data.textField !== "missing") return { spec, warnings: [] };
    const violations = [{ field: "data.paths[0]", description: "no such file" }];
    throw new SegueError("SPEC_INVALID", "data.paths[0]: no such file", { violations });
  },
  async open(spec, { cursor }) {
    let step = (cursor as { next: number } | undefined)?.next ?? 0;
    return {
      eosId: 0,
      next: async () => cut(spec, step++),
      close: async () => undefined,
    };
  },
};

function cut(spec: JobSpec, step: number): CutStep {
  const positions = spec.batch.lanesPerShard * laneTokensPerStep(spec.tbptt);
  const shards = Array.from({ length: spec.batch.shards }, (_, shard) => {
    const tokens = Int32Array.from({ length: positions }, (_, i) => (step * 7 + shard * 3 + i) % 256);
    const bytes = new Uint8Array(tokens.buffer);
    return { shard, tokens: bytes, labels: bytes, weights: new Uint8Array(), resets: new Uint8Array() };
  });
  return {
    totalWeight: positions * spec.batch.shards,
    shards,
    cursor: { next: step + 1 },
    documentsRead: step + 1,
    documentsDroppedShort: 0,
  };
}
