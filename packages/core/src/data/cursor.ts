/** Where the data stands between two steps: plain JSON, from which a cutter continues identically. */
export interface DataCursor {
  /** The step to be cut next; 0-based. */
  readonly step: number;
  /** 0-based pass over the documents, and how many documents of its order have been taken. */
  readonly epoch: number;
  readonly taken: number;
  /** Of every lane, and of the tape of documents of the same number, which it reads unless `tbptt.sequence` is unrelated. */
  readonly lanes: readonly LaneCursor[];
  readonly counters: DataCounters;
}

export interface LaneCursor {
  /** Index of the document being read; null: the tape takes the next one (or is dry when there is none). */
  readonly document: number | null;
  /** Tokens of the document's tape (its tokens and the end token) that have been inputs. */
  readonly position: number;
  /** Segments since the lane's chain began (`tbptt.segmentsPerChain`, `.stateDropProbability`). */
  readonly segmentsInChain: number;
}

export interface DataCounters {
  readonly documentsRead: number;
  /** Documents left out because they have fewer than `data.minDocumentTokens` tokens. */
  readonly documentsDroppedShort: number;
  /** Input tokens cut so far, padding not counted. */
  readonly tokens: number;
}

/** The cursor of a job that has not started. */
export function initialCursor(lanes: number): DataCursor {
  return {
    step: 0,
    epoch: 0,
    taken: 0,
    lanes: Array.from({ length: lanes }, () => ({ document: null, position: 0, segmentsInChain: 0 })),
    counters: { documentsRead: 0, documentsDroppedShort: 0, tokens: 0 },
  };
}
