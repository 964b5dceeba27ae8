import {
  corpusText,
  resolveVocabulary,
  SegmentCutter,
  SegueError,
  type DataCursor,
  type JobSpec,
  type ShardSegment,
} from "@segue/core";
import type { CutShard, CutStep, DataSource, StepCutter } from "../feed/step-cutter.js";
import { countSteps, planData } from "./data-plan.js";
import { checkDocuments, openDocuments, type DataFolders } from "./open-documents.js";

/** Where the data stands, and which data it is. */
interface StoredCursor extends DataCursor {
  readonly fingerprint: string;
}

/** The data of jobs: documents in files, or synthetic ones, cut into segments. */
export function createDataSource(folders: DataFolders): DataSource {
  return {
    async prepare(spec) {
      const { tokenizer, leftOut } = await checkDocuments(spec, folders);
      return { spec: resolveVocabulary(spec, tokenizer.vocab), warnings: leftOut };
    },
    plan: (spec) => planData(spec, folders),
    countSteps: (spec) => countSteps(spec, folders),
    open: (spec, cursor) => openCutter(spec, cursor as StoredCursor | undefined, folders),
    async corpusText(spec, text) {
      const { source, tokenizer } = await openDocuments(spec, folders);
      try {
        return await corpusText(source, tokenizer.eosId, spec.data.minDocumentTokens, text);
      } finally {
        await source.close();
      }
    },
  };
}

async function openCutter(spec: JobSpec, stored: StoredCursor | undefined, folders: DataFolders): Promise<StepCutter> {
  const { source, tokenizer, tokenizerJson, fingerprint } = await openDocuments(spec, folders);
  if (stored && stored.fingerprint !== fingerprint) {
    await source.close();
    throw new SegueError(
      "DATA_CHANGED",
      "The documents are not those the checkpoint was trained on; restore them, or start a new job.",
      {
        status: "FAILED_PRECONDITION",
      },
    );
  }
  const { seed, data, tbptt, batch } = spec;
  const { eosId } = tokenizer;
  const cutter = new SegmentCutter({ source, eosId, seed, data, tbptt, batch, cursor: stored });
  return {
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
