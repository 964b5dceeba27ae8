import { corpusText, resolveVocabulary, SegmentCutter, type DataCursor, type JobSpec, type ShardSegment } from "@segue/core";
import type { CutShard, CutStep, DataPosition, DataSource, StepCutter } from "../feed/step-cutter.js";
import { countSteps, planData } from "./data-plan.js";
import type { StoredFingerprint } from "./fingerprint.js";
import { openForJob } from "./open-for-job.js";
import { checkDocuments, type DataFolders } from "./open-documents.js";

/** Where the data stands, and which data it is. */
interface StoredCursor extends DataCursor {
  readonly fingerprint: StoredFingerprint;
}

/** The data of jobs: documents in files, or synthetic ones, cut into segments. */
export function createDataSource(folders: DataFolders): DataSource {
  return {
    async prepare(spec) {
      const { tokenizer, leftOut } = await checkDocuments(spec, folders);
      return { spec: resolveVocabulary(spec, tokenizer.vocab), warnings: leftOut };
    },
    plan: (spec) => planData(spec, folders),
    countSteps: (spec, fingerprint) => countSteps(spec, folders, fingerprint as StoredFingerprint | undefined),
    open: (spec, from) => openCutter(spec, from, folders),
    async corpusText(spec, text, fingerprint) {
      const { source, tokenizer } = await openForJob(spec, folders, fingerprint as StoredFingerprint | undefined);
      try {
        return await corpusText(source, tokenizer.eosId, spec.data.minDocumentTokens, text);
      } finally {
        await source.close();
      }
    },
  };
}

async function openCutter(spec: JobSpec, from: DataPosition, folders: DataFolders): Promise<StepCutter> {
  const stored = from.cursor as StoredCursor | undefined;
  const trainedOn = stored?.fingerprint ?? (from.fingerprint as StoredFingerprint | undefined);
  const opened = await openForJob(spec, folders, trainedOn, from.tokenizerSha256);
  const { source, tokenizer, tokenizerJson, fingerprint, leftOut } = opened;
  const { seed, data, tbptt, batch } = spec;
  const { eosId } = tokenizer;
  const cutter = new SegmentCutter({ source, eosId, seed, data, tbptt, batch, cursor: stored });
  return {
    fingerprint,
    leftOut,
    eosId,
    tokenizerJson,
    async next() {
      const cut = await cutter.next();
      if (!cut) return undefined;
      const { documentsRead, documentsDroppedShort } = cut.cursor.counters;
      const cursor: StoredCursor = { ...cut.cursor, fingerprint };
      return {
        totalWeight: cut.totalWeight,
        shards: cut.shards.map(toWire),
        cursor,
        documentsRead,
        documentsDroppedShort,
      } satisfies CutStep;
    },
    async close() {
      await cutter.close();
      await source.close();
    },
  };
}

function toWire({ shard, tokens, labels, weights, resets }: ShardSegment): CutShard {
  return { shard, tokens: bytesOf(tokens), labels: bytesOf(labels), weights: bytesOf(weights), resets: bytesOf(resets) };
}

/** Node runs on little-endian machines, which is the order of the wire. */
function bytesOf(array: Int32Array | Float32Array | Uint8Array | undefined): Uint8Array {
  return array ? new Uint8Array(array.buffer, array.byteOffset, array.byteLength) : new Uint8Array(0);
}
