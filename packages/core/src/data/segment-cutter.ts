import { SegueError } from "../errors.js";
import type { BatchSpec, DataSpec, TbpttSpec } from "../spec/job-spec.js";
import { laneTokensPerStep } from "../spec/step-tokens.js";
import { initialCursor, type DataCounters, type DataCursor, type LaneCursor } from "./cursor.js";
import { shuffledDocument } from "./document-order.js";
import type { DocumentSource } from "./document-source.js";
import { LaneTape, OpenDocument, type TapePosition, type TapeTarget } from "./lane-tape.js";

/** One shard's part of a step; row-major [lanesPerShard, segmentsPerStep * segmentTokens]. */
export interface ShardSegment {
  readonly shard: number;
  readonly tokens: Int32Array;
  readonly labels: Int32Array;
  /** Loss weight of each label; absent: all 1. */
  readonly weights?: Float32Array;
  /** 1: the state is zeroed before this token; absent: none. */
  readonly resets?: Uint8Array;
}

export interface StepSegments {
  readonly step: number;
  /** Sum of the label weights of all shards: the denominator of the step's mean loss. */
  readonly totalWeight: number;
  /** In order of shard. */
  readonly shards: readonly ShardSegment[];
  /** Where the data stands after this step. */
  readonly cursor: DataCursor;
}

export interface SegmentCutterOptions {
  readonly source: DocumentSource;
  readonly eosId: number;
  readonly seed: number;
  readonly data: Pick<DataSpec, "minDocumentTokens" | "epochs" | "shuffle">;
  readonly tbptt: Pick<TbpttSpec, "segmentTokens" | "segmentsPerStep" | "segmentsPerChain" | "resetAtDocumentEnd">;
  readonly batch: BatchSpec;
  /** Continue after the step whose cursor this is; absent: from the beginning. */
  readonly cursor?: DataCursor | undefined;
}

interface Lane {
  readonly tape: LaneTape;
  cursor: LaneCursor;
  /** The token that ended the last step as a label and starts the next one as an input. */
  carried: { readonly token: number; readonly weight: number; readonly start: number } | undefined;
}

/**
 * Cuts the lanes' tapes into segments, step by step and within a step lane by lane, so that which lane gets which document depends on
 * seed and data alone. Labels are the tape shifted by one and reach one token into the next segment: every token but the first of a
 * document (with `resetAtDocumentEnd`: its predecessor cannot know it) is a label once, every token an input once.
 * A lane without documents is padded with end tokens of weight 0; when all are, the data is at its end.
 */
export class SegmentCutter {
  readonly #options: SegmentCutterOptions;
  readonly #lanes: Lane[];
  #step: number;
  #epoch: number;
  #taken: number;
  #counters: DataCounters;
  /** Documents dropped since one was long enough: a whole epoch of them means that none ever will be. */
  #droppedInARow = 0;
  #ended = false;

  constructor(options: SegmentCutterOptions) {
    const { batch, source, eosId } = options;
    const cursor = options.cursor ?? initialCursor(batch.shards * batch.lanesPerShard);
    if (cursor.lanes.length !== batch.shards * batch.lanesPerShard) {
      throw new SegueError(
        "CURSOR_MISMATCH",
        `The data cursor has ${cursor.lanes.length} lanes, the job ${batch.shards * batch.lanesPerShard}.`,
      );
    }
    this.#options = options;
    this.#step = cursor.step;
    this.#epoch = cursor.epoch;
    this.#taken = cursor.taken;
    this.#counters = cursor.counters;
    this.#lanes = cursor.lanes.map((lane) => ({
      cursor: lane,
      carried: undefined,
      tape: new LaneTape(source, eosId, lane, () => this.#takeDocument()),
    }));
  }

  /**
   * The next step; undefined when no lane has a label left.
   * @throws SegueError NO_DOCUMENTS when every document is shorter than `minDocumentTokens`; whatever the source throws
   */
  async next(): Promise<StepSegments | undefined> {
    if (this.#ended) return undefined;
    const { batch } = this.#options;
    const shards: ShardSegment[] = [];
    let totalWeight = 0;
    for (let shard = 0; shard < batch.shards; shard++) {
      const cut = await this.#cutShard(shard);
      shards.push(cut.segment);
      totalWeight += cut.weight;
    }
    if (totalWeight === 0) {
      this.#ended = true;
      return undefined;
    }
    this.#step++;
    return { step: this.#step - 1, totalWeight, shards, cursor: this.#cursor() };
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#ended = true;
    await Promise.all(this.#lanes.map(({ tape }) => tape.close()));
  }

  async #cutShard(shard: number): Promise<{ segment: ShardSegment; weight: number }> {
    const { batch, tbptt } = this.#options;
    const { lanesPerShard } = batch;
    const laneTokens = laneTokensPerStep(tbptt);
    const size = lanesPerShard * laneTokens;
    const arrays = {
      tokens: new Int32Array(size),
      labels: new Int32Array(size),
      weights: new Float32Array(size),
      resets: new Uint8Array(size),
    };
    for (let lane = 0; lane < lanesPerShard; lane++) {
      const from = lane * laneTokens;
      await this.#cutLane(shard * lanesPerShard + lane, {
        tokens: arrays.tokens.subarray(from, from + laneTokens),
        labels: arrays.labels.subarray(from, from + laneTokens),
        weights: arrays.weights.subarray(from, from + laneTokens),
        resets: arrays.resets.subarray(from, from + laneTokens),
      });
    }
    const { tokens, labels, weights, resets } = arrays;
    const segment = {
      shard,
      tokens,
      labels,
      ...(weights.some((weight) => weight !== 1) && { weights }),
      ...(resets.includes(1) && { resets }),
    };
    return { segment, weight: weights.reduce((sum, weight) => sum + weight, 0) };
  }

  async #cutLane(
    index: number,
    into: { tokens: Int32Array; labels: Int32Array; weights: Float32Array; resets: Uint8Array },
  ): Promise<void> {
    const { tbptt, eosId } = this.#options;
    const laneTokens = laneTokensPerStep(tbptt);
    const lane = this.#lanes[index];
    if (!lane) throw new RangeError(`no lane ${index}`);

    const strip: TapeTarget = {
      tokens: new Int32Array(laneTokens + 1).fill(eosId),
      weights: new Float32Array(laneTokens + 1),
      starts: new Uint8Array(laneTokens + 1),
    };
    const { carried } = lane;
    const already = carried ? 1 : 0;
    if (carried) {
      strip.tokens[0] = carried.token;
      strip.weights[0] = carried.weight;
      strip.starts[0] = carried.start;
    }
    const filled = already + (await lane.tape.read(strip, already, laneTokens + 1 - already));

    into.tokens.set(strip.tokens.subarray(0, laneTokens));
    into.labels.set(strip.tokens.subarray(1));
    into.weights.set(strip.weights.subarray(1));
    if (tbptt.resetAtDocumentEnd) {
      into.resets.set(strip.starts.subarray(0, laneTokens));
      for (let i = 0; i < laneTokens; i++) if (strip.starts[i + 1]) into.weights[i] = 0;
    }
    const segmentsInChain = this.#resetAtChainEnds(lane.cursor.segmentsInChain, into.resets);

    const goesOn = filled > laneTokens;
    lane.carried = goesOn
      ? {
          token: strip.tokens[laneTokens] ?? eosId,
          weight: strip.weights[laneTokens] ?? 0,
          start: strip.starts[laneTokens] ?? 0,
        }
      : undefined;
    const position: TapePosition = goesOn ? lane.tape.lastPosition : { document: null, position: 0 };
    lane.cursor = { ...position, segmentsInChain };
    this.#counters = { ...this.#counters, tokens: this.#counters.tokens + Math.min(filled, laneTokens) };
  }

  /** Marks the starts of the step's segments at which a chain is over. @returns the segments of the running chain after the step */
  #resetAtChainEnds(segmentsInChain: number, resets: Uint8Array): number {
    const { segmentTokens, segmentsPerChain } = this.#options.tbptt;
    let running = segmentsInChain;
    for (let start = 0; start < resets.length; start += segmentTokens) {
      const isOver = segmentsPerChain > 0 && running >= segmentsPerChain;
      if (isOver) resets[start] = 1;
      running = isOver ? 1 : running + 1;
    }
    return running;
  }

  /** The next document of the epoch's order that is long enough; null when the last epoch is over. */
  async #takeDocument(): Promise<OpenDocument | null> {
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
        this.#counters = { ...this.#counters, documentsRead: this.#counters.documentsRead + 1 };
        return document;
      }
      await document.close();
      this.#droppedInARow++;
      this.#counters = { ...this.#counters, documentsDroppedShort: this.#counters.documentsDroppedShort + 1 };
    }
    if (this.#counters.documentsRead > 0) return null;
    const why = count === 0 ? "there are none" : `all ${count} are shorter than data.minDocumentTokens = ${data.minDocumentTokens}`;
    throw new SegueError("NO_DOCUMENTS", `No document to train on: ${why}.`, { status: "FAILED_PRECONDITION" });
  }

  #cursor(): DataCursor {
    return {
      step: this.#step,
      epoch: this.#epoch,
      taken: this.#taken,
      lanes: this.#lanes.map(({ cursor }) => cursor),
      counters: this.#counters,
    };
  }
}
