import { createWriteStream, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { startLocalCluster, type LocalCluster } from "@segue/cli";
import { peakBytes, trainToEnd } from "./memory.js";

/** The largest memory of each process after so many segments of the document were committed. */
export interface PeaksAtSegment {
  readonly segments: number;
  readonly workerBytes: number;
  readonly coordinatorBytes: number;
}

/**
 * Trains a model of a few thousand parameters once over a document of `tokens` bytes in one lane, on a cluster of real processes. Rounds
 * have 8 segments, so that from the start as many wait as at the end.
 * @param warmUpSegments of another document that come first: then both processes have loaded and compiled what they will use
 */
export async function trainOnLongDocument(
  tokens: number,
  segmentTokens: number,
  warmUpSegments: number,
): Promise<PeaksAtSegment[]> {
  const dir = mkdtempSync(join(tmpdir(), "segue-long-"));
  let cluster: LocalCluster | undefined;
  try {
    const short = join(dir, "short.txt");
    const long = join(dir, "long.txt");
    await writeDocument(short, warmUpSegments * segmentTokens);
    await writeDocument(long, tokens);
    cluster = await startLocalCluster({ dir, workers: 1, evaluators: 0, dashboard: false, threads: 1, engine: "cpu" });
    const { pid: worker } = cluster.process("worker-1");
    const { pid: coordinator } = cluster.process("coordinator");
    if (warmUpSegments > 0) await trainToEnd(cluster, specOver(short, warmUpSegments, segmentTokens));
    const peaks: PeaksAtSegment[] = [];
    await trainToEnd(cluster, specOver(long, Math.ceil(tokens / segmentTokens), segmentTokens), (segments) => {
      peaks.push({ segments, workerBytes: peakBytes(worker), coordinatorBytes: peakBytes(coordinator) });
    });
    return peaks;
  } finally {
    await cluster?.close();
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Sentences that differ, up to exactly `bytes` bytes. */
async function writeDocument(path: string, bytes: number): Promise<void> {
  const sentences = function* (): Generator<string> {
    for (let left = bytes, n = 0; left > 0;) {
      let text = "";
      while (text.length < 2 ** 16) text += `Sentence ${n++} of a document that goes on and on. `;
      yield text.slice(0, left);
      left -= text.length;
    }
  };
  await pipeline(Readable.from(sentences()), createWriteStream(path));
}

function specOver(path: string, steps: number, segmentTokens: number): string {
  return `
name: long-document
model: { layers: 1, dModel: 16, dState: 16, headDim: 16, chunk: 64 }
data: { paths: ["${path}"] }
tbptt: { segmentTokens: ${segmentTokens}, segmentsPerChain: 0 }
batch: { shards: 1, lanesPerShard: 1 }
train: { steps: ${steps}, engine: cpu }
rounds: { maxSteps: 8 }
checkpoints: { everySteps: 0 }
workers: { min: 1, max: 1 }
`;
}
