import { SegueError } from "../errors.js";
import type { DataSpec } from "../spec/job-spec.js";
import type { DataCursor } from "./cursor.js";
import { shuffledDocument } from "./document-order.js";
import type { DocumentSource } from "./document-source.js";
import { OpenDocument } from "./lane-tape.js";

export interface DocumentTakerOptions {
  readonly source: DocumentSource;
  readonly seed: number;
  readonly data: Pick<DataSpec, "minDocumentTokens" | "epochs" | "shuffle">;
}

/** Gives out the documents of a source in the order of seed and epoch, those that are too short left out. */
export class DocumentTaker {
  readonly #options: DocumentTakerOptions;
  #epoch: number;
  #taken: number;
  #read: number;
  #droppedShort: number;
  /** Documents dropped since one was long enough: a whole epoch of them means that none ever will be. */
  #droppedInARow = 0;

  constructor(options: DocumentTakerOptions, { epoch, taken, counters }: Pick<DataCursor, "epoch" | "taken" | "counters">) {
    this.#options = options;
    this.#epoch = epoch;
    this.#taken = taken;
    this.#read = counters.documentsRead;
    this.#droppedShort = counters.documentsDroppedShort;
  }

  /** Where a taker goes on from. */
  get position(): Pick<DataCursor, "epoch" | "taken"> {
    return { epoch: this.#epoch, taken: this.#taken };
  }

  get counters(): { readonly documentsRead: number; readonly documentsDroppedShort: number } {
    return { documentsRead: this.#read, documentsDroppedShort: this.#droppedShort };
  }

  /**
   * The next document that is long enough; null when the last epoch is over.
   * @throws SegueError NO_DOCUMENTS when every document is shorter than `minDocumentTokens`
   */
  async take(): Promise<OpenDocument | null> {
    const { source, data, seed } = this.#options;
    const { count } = source;
    // Between two documents that are long enough lie at most the rest of one epoch and the start of the next.
    while (this.#droppedInARow < 2 * count) {
      if (this.#taken >= count) {
        if (data.epochs > 0 && this.#epoch + 1 >= data.epochs) break;
        this.#epoch++;
        this.#taken = 0;
      }
      const position = this.#taken++;
      const index = data.shuffle && count !== Infinity ? shuffledDocument(position, count, seed, this.#epoch) : position;
      const document = new OpenDocument(source, index, 0);
      if (await document.hasTokens(Math.max(1, data.minDocumentTokens))) {
        this.#droppedInARow = 0;
        this.#read++;
        return document;
      }
      await document.close();
      this.#droppedInARow++;
      this.#droppedShort++;
    }
    if (this.#read > 0) return null;
    const why = count === 0 ? "there are none" : `all ${count} are shorter than data.minDocumentTokens = ${data.minDocumentTokens}`;
    throw new SegueError("NO_DOCUMENTS", `No document to train on: ${why}.`, { status: "FAILED_PRECONDITION" });
  }
}
