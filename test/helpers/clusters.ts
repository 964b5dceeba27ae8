import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startLocalCluster, type LocalCluster, type LocalClusterOptions } from "@segue/cli";

const segue = fileURLToPath(new URL("../../packages/cli/bin/segue.js", import.meta.url));

export interface CliResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the real `segue` as a process against a cluster, or against the address of a coordinator. */
export function runSegue(target: LocalCluster | string, ...args: string[]): Promise<CliResult> {
  const settings =
    typeof target === "string"
      ? { SEGUE_COORDINATOR: target }
      : { SEGUE_COORDINATOR: target.coordinator, REDIS_URL: target.redisUrl };
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [segue, ...args],
      { env: { ...process.env, ...settings }, maxBuffer: 64 * 2 ** 20 },
      (error, stdout, stderr) => resolve({ status: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
    );
  });
}

/** The JSON a command prints with --json. @throws Error with what the command said when it fails */
export async function segueJson<T>(target: LocalCluster | string, ...args: string[]): Promise<T> {
  const { status, stdout, stderr } = await runSegue(target, ...args, "--json");
  if (status !== 0) throw new Error(`segue ${args.join(" ")} exited with ${status}\n${stdout}\n${stderr}`);
  return JSON.parse(stdout) as T;
}

/** Three beats that do not come are a lost worker: on a busy machine none is lost that the test does not kill. */
const HEARTBEAT_MS = "5000";

/** Clusters and folders of one test, ended and removed by {@link close}, the newest first. */
export class Scratch {
  readonly #cleanups: (() => unknown)[] = [];

  folder(): string {
    const folder = mkdtempSync(join(tmpdir(), "segue-test-"));
    this.#cleanups.push(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
    return folder;
  }

  async cluster(options: Partial<LocalClusterOptions> = {}): Promise<LocalCluster> {
    const env = { SEGUE_HEARTBEAT_MS: HEARTBEAT_MS, ...options.env };
    const cluster = await startLocalCluster({
      evaluators: 0,
      dashboard: false,
      ...options,
      env,
      dir: options.dir ?? this.folder(),
    });
    this.#cleanups.push(() => cluster.close());
    return cluster;
  }

  async close(): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0).reverse()) await cleanup();
  }
}

/** A job small enough for the plain JavaScript backend, on documents that are several segments long. */
export function tinySpec(
  overrides: { steps?: number; everySteps?: number; engine?: string; minWorkers?: number; shards?: number } = {},
): string {
  const { steps = 20, everySteps = 0, engine = "auto", minWorkers = 1, shards = 4 } = overrides;
  return `
name: tiny
seed: 7
model: { layers: 1, dModel: 16, dState: 8, headDim: 8, chunk: 16 }
data: { passkey: { documentTokens: 300, digits: 2, askProbability: 0.5, answerWeight: 4 } }
tbptt: { segmentTokens: 32, segmentsPerChain: 0 }
batch: { shards: ${shards}, lanesPerShard: 2 }
optimizer: { learningRate: 0.01 }
schedule: { warmupSteps: 2, decaySteps: 4 }
train: { steps: ${steps}, engine: ${engine} }
rounds: { targetMs: 200, maxSteps: 4 }
checkpoints: { everySteps: ${everySteps} }
workers: { min: ${minWorkers}, max: 4 }
`;
}

/** A tiny job whose states are passed on, dropped at random and begun from noise, over a curriculum of three stages. */
export function withStates(spec: string, thirdFromStep: number): string {
  const tbptt = `tbptt:
  segmentTokens: 32
  segmentsPerChain: 5
  sequence: unrelated
  stateDropProbability: 0.2
  initialState: fittedNoise
  curriculum: [{ fromStep: 30, segmentTokens: 48, segmentsPerChain: 3 }, { fromStep: ${thirdFromStep}, segmentTokens: 64 }]`;
  return spec.replace(/^tbptt: .*$/m, tbptt);
}
