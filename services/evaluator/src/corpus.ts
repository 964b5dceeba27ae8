import type { CorpusText } from "@segue/core";
import { pullTensor, type Client, type Tensors } from "@segue/protocol";

/** Prompts of a job's documents, read whole. */
export type Corpus = readonly (CorpusText & { readonly tokens_T: Int32Array })[];

/**
 * Has the coordinator read them.
 * @throws a grpc ServiceError when it does not answer, cannot read the documents any more, or does not know the job
 */
export async function readCorpus(
  tensors: Client<typeof Tensors>,
  jobId: string,
  texts: readonly CorpusText[],
  signal: AbortSignal,
): Promise<Corpus> {
  const corpus = [];
  for (const text of texts) {
    const { seed, index, tokens } = text;
    const { data } = await pullTensor(tensors, `job/${jobId}/corpus/${seed}/${index}/${tokens}`, { signal });
    corpus.push({ ...text, tokens_T: new Int32Array(Uint8Array.from(data).buffer) });
  }
  return corpus;
}
