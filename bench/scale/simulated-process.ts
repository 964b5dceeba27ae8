/** A process full of simulated workers, forked by Fleet: its settings are JSON in the first argument, its parent speaks over IPC. */
import { laneStateFloats, type JobSpec } from "@segue/core";
import { TensorRegistry, Tensors, tensorsHandlers, type Tensor } from "@segue/protocol";
import { createLogger, startGrpcServer } from "@segue/runtime";
import type { ProcessReport, ProcessSettings } from "./fleet.js";
import { SimulatedWorker } from "./simulated-worker.js";

const GROUP = 50;

const settings = JSON.parse(process.argv[2] ?? "{}") as ProcessSettings;
const states = zeroStates(settings.spec);
let pulls = 0;

const server = await startGrpcServer({
  listen: "127.0.0.1:0",
  services: [{ service: Tensors, handlers: tensorsHandlers(new TensorRegistry(), servedStates) }],
  logger: createLogger("simulated-workers", "error"),
});
const workers = settings.names.map(
  (name) =>
    new SimulatedWorker({ name, coordinator: settings.coordinator, tensorsAddress: server.address, stepMs: settings.stepMs }),
);
// In small groups: thousands of connections made in one go would hold up the heartbeats of those that have one.
for (let first = 0; first < workers.length; first += GROUP) {
  const group = workers.slice(first, first + GROUP);
  for (const worker of group) worker.attach();
  await Promise.all(group.map(({ attached }) => attached));
}
process.send?.("attached");

process.on("message", () => process.send?.(report()));
process.on("disconnect", () => {
  for (const worker of workers) worker.close();
  void server.close(1_000).then(() => process.exit(0));
});

/** What happened since the last report; the lateness is that of this time, everything else is counted from the start. */
function report(): ProcessReport {
  const tallies = workers.map(({ tally }) => tally);
  const sum = (key: "segments" | "received" | "sent"): number => tallies.reduce((total, tally) => total + tally[key], 0);
  const lateMs = Math.max(...tallies.map((tally) => tally.lateMs));
  for (const tally of tallies) tally.lateMs = 0;
  return {
    segments: sum("segments"),
    received: sum("received"),
    sent: sum("sent"),
    pulls,
    lateMs,
    rounds: Math.min(...tallies.map(({ rounds }) => rounds)),
    generations: Math.max(...tallies.map(({ generations }) => generations)),
    faults: tallies.flatMap(({ faults }) => faults),
    shards: workers.flatMap((worker) => worker.shards()),
  };
}

/** Every lane state that is asked for: all zero. */
async function servedStates(ref: string): Promise<Tensor | undefined> {
  if (!/\/states\/\d+$/.test(ref)) return undefined;
  pulls++;
  return states;
}

function zeroStates({ batch, model }: Pick<JobSpec, "batch" | "model">): Tensor {
  const shape = [batch.lanesPerShard, laneStateFloats(model)];
  return { dtype: "f32", shape, data: new Uint8Array(4 * batch.lanesPerShard * laneStateFloats(model)) };
}
