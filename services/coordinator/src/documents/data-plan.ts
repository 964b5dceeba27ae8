import { stepsForTokens, stepsOfDocuments, type JobSpec } from "@segue/core";
import type { DataPlan, StepCount } from "../feed/step-cutter.js";
import { countTokens, estimateTokens, knownTokens } from "./count-tokens.js";
import type { StoredFingerprint } from "./fingerprint.js";
import { openForJob } from "./open-for-job.js";
import { isQuickToIndex, openDocuments, type DataFolders } from "./open-documents.js";

/** Text up to this many bytes is tokenized whole when a job is submitted; of more a sample. */
const COUNT_AT_SUBMIT_BYTES = 1 << 20;

/** Whether documents can end before `train.steps`. */
function canEnd({ data }: JobSpec): boolean {
  return !data.passkey && data.epochs > 0;
}

/** What the documents of a job come to, as far as that is quick to find out; undefined for documents that nobody wrote. */
export async function planData(
  spec: JobSpec,
  folders: DataFolders,
  countBytes = COUNT_AT_SUBMIT_BYTES,
): Promise<DataPlan | undefined> {
  if (spec.data.passkey) return undefined;
  if (!(await isQuickToIndex(spec, folders))) {
    return { basis: "UNKNOWN", documents: 0, documentsTooShort: 0, tokens: 0, steps: spec.train.steps };
  }
  const documents = await openDocuments(spec, folders);
  try {
    const known = await knownTokens(documents, folders.cacheDir);
    const isShort = documents.byteLengths.reduce((sum, length) => sum + length, 0) <= countBytes;
    if (!known && !isShort) return { basis: "ESTIMATED", ...extentOf(await estimateTokens(documents), spec) };
    const { signal } = new AbortController();
    const counted = known ?? (await countTokens(documents, { ...folders, signal, onDocument: () => undefined }));
    return { basis: "EXACT", ...extentOf(counted, spec) };
  } finally {
    await documents.source.close();
  }
}

/** Counts in the background; undefined where documents never end. */
export function countSteps(spec: JobSpec, folders: DataFolders, fingerprint?: StoredFingerprint): StepCount | undefined {
  if (!canEnd(spec)) return undefined;
  const closing = new AbortController();
  const { epochs } = spec.data;
  const least = leastTokens(spec);
  let tokens = 0;
  const count = async (): Promise<number> => {
    const documents = await openForJob(spec, folders, fingerprint);
    try {
      const lengths = await countTokens(documents, {
        cacheDir: folders.cacheDir,
        signal: closing.signal,
        onDocument: (counted) => void (tokens += counted >= least ? counted : 0),
      });
      return stepsOfDocuments({ ...spec, lengths }, spec.train.steps);
    } finally {
      await documents.source.close();
    }
  };
  return {
    total: count(),
    // Every token but a document's first is a label once, and its end token too.
    get atLeast() {
      return Math.min(spec.train.steps, stepsForTokens(spec, epochs * tokens));
    },
    close: () => closing.abort(),
  };
}

function extentOf(lengths: ArrayLike<number>, spec: JobSpec): Omit<DataPlan, "basis"> {
  const least = leastTokens(spec);
  let documents = 0;
  let tokens = 0;
  for (let document = 0; document < lengths.length; document++) {
    const length = lengths[document] ?? 0;
    if (length < least) continue;
    documents++;
    tokens += length + 1;
  }
  const steps = canEnd(spec) ? stepsOfDocuments({ ...spec, lengths }, spec.train.steps) : spec.train.steps;
  return { documents, documentsTooShort: lengths.length - documents, tokens, steps };
}

function leastTokens({ data }: JobSpec): number {
  return Math.max(1, data.minDocumentTokens);
}
