import { SegueError } from "../errors.js";
import type { BatchSpec, DataSpec, TbpttSpec } from "../spec/job-spec.js";
import { laneTokensPerStep, segmentsBefore } from "../spec/step-tokens.js";
import { tbpttAt } from "../spec/tbptt-stages.js";
import { chainStarts } from "./chain-starts.js";
import { initialCursor, type DataCursor } from "./cursor.js";
import type { DocumentSource } from "./document-source.js";
import { DocumentTaker } from "./document-taker.js";
import { LaneTape, type TapePosition, type TapeTarget } from "./lane-tape.js";

/** One shard's part of a step; row-major [lanesPerShard, segmentsPerStep * segmentTokens], the settings being those of the step. */
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
  readonly tbptt: Omit<TbpttSpec, "gradient" | "carrySsm" | "carryConv" | "initialStateStd">;
  readonly batch: BatchSpec;
  /** Continue after the step whose cursor this is; absent: from the beginning. */
  readonly cursor?: DataCursor | undefined;
}

interface Tape {
  readonly tape: LaneTape;
  position: TapePosition;
  /** The token that ended the last step as a label and starts the next one as an input. */
  carried: { readonly token: number; readonly weight: number; readonly start: number } | undefined;
}

/** Rows of a step's arrays. */
interface Rows {
  readonly tokens: Int32Array;
  readonly labels: Int32Array;
  readonly weights: Float32Array;
  readonly resets: Uint8Array;
}

/**
 * Cuts endless tapes of documents, as many as there are lanes, into segments, step by step and within a step tape by tape, so that which
 * tape gets which document depends on seed and data alone. Labels are the tape shifted by one and reach one token into the next segment:
 * every token but the first of a document (which its predecessor cannot know, unless documents are joined without a reset) is a label
 * once, every token an input once. A tape without documents is padded with end tokens of weight 0; when all are, the data is at its end.
 *
 * With `sequence` contiguous a lane reads the tape of its number. With unrelated the tapes move on by one lane after each segment: every
 * lane's next segment is of another tape, while its state stays with the lane.
 */
export class SegmentCutter {
  readonly #options: SegmentCutterOptions;
  readonly #documents: DocumentTaker;
  readonly #tapes: Tape[];
  /** Of every lane. */
  readonly #segmentsInChain: number[];
  #step: number;
  #tokens: number;
  #ended = false;

  constructor(options: SegmentCutterOptions) {
    const { batch, source, eosId } = options;
    const lanes = batch.shards * batch.lanesPerShard;
    const cursor = options.cursor ?? initialCursor(lanes);
    if (cursor.lanes.length !== lanes) {
      throw new SegueError("CURSOR_MISMATCH", `The data cursor has ${cursor.lanes.length} lanes, the job ${lanes}.`);
    }
    this.#options = options;
    this.#documents = new DocumentTaker(options, cursor);
    this.#step = cursor.step;
    this.#tokens = cursor.counters.tokens;
    this.#tapes = cursor.lanes.map(({ document, position }) => ({
      position: { document, position },
      carried: undefined,
      tape: new LaneTape(source, eosId, { document, position }, () => this.#documents.take()),
    }));
    this.#segmentsInChain = cursor.lanes.map(({ segmentsInChain }) => segmentsInChain);
  }

  /**
   * The next step; undefined when no lane has a label left.
   * @throws SegueError NO_DOCUMENTS when every document is shorter than `minDocumentTokens`; whatever the source throws
   */
  async next(): Promise<StepSegments | undefined> {
    if (this.#ended) return undefined;
    const { shards, lanesPerShard } = this.#options.batch;
    const settings = tbpttAt(this.#options.tbptt, this.#step);
    const { segmentTokens, segmentsPerStep } = settings;
    const laneTokens = laneTokensPerStep(settings);
    const isUnrelated = settings.sequence === "unrelated";
    const lanes = shards * lanesPerShard;
    const ofShard = Array.from({ length: shards }, () => emptyRows(lanesPerShard * laneTokens));
    const segmentOf = (lane: number, segment: number): Rows => {
      const start = (lane % lanesPerShard) * laneTokens + segment * segmentTokens;
      return rowsFrom(ofShard[Math.floor(lane / lanesPerShard)] ?? emptyRows(0), start, segmentTokens);
    };
    const moved = segmentsBefore(this.#options.tbptt, this.#step);
    for (const [index, tape] of this.#tapes.entries()) {
      const strip = await this.#stripOf(tape, laneTokens);
      for (let segment = 0; segment < segmentsPerStep; segment++) {
        const lane = isUnrelated ? (index + moved + segment) % lanes : index;
        this.#place(strip, segment * segmentTokens, segmentOf(lane, segment));
      }
    }
    for (let lane = 0; lane < lanes; lane++) {
      for (const segment of this.#chainStartsOf(lane, settings)) segmentOf(lane, segment).resets[0] = 1;
    }
    const totalWeight = ofShard.reduce((total, { weights }) => total + weights.reduce((sum, weight) => sum + weight, 0), 0);
    if (totalWeight === 0) {
      this.#ended = true;
      return undefined;
    }
    this.#step++;
    return { step: this.#step - 1, totalWeight, shards: ofShard.map(shardSegment), cursor: this.#cursor() };
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#ended = true;
    await Promise.all(this.#tapes.map(({ tape }) => tape.close()));
  }

  /** The next tokens of a tape, and one more, which is the last one's label. */
  async #stripOf(tape: Tape, laneTokens: number): Promise<TapeTarget> {
    const { eosId } = this.#options;
    const strip: TapeTarget = {
      tokens: new Int32Array(laneTokens + 1).fill(eosId),
      weights: new Float32Array(laneTokens + 1),
      starts: new Uint8Array(laneTokens + 1),
    };
    const { carried } = tape;
    const already = carried ? 1 : 0;
    if (carried) {
      strip.tokens[0] = carried.token;
      strip.weights[0] = carried.weight;
      strip.starts[0] = carried.start;
    }
    const filled = already + (await tape.tape.read(strip, already, laneTokens + 1 - already));

    const goesOn = filled > laneTokens;
    tape.carried = goesOn
      ? {
          token: strip.tokens[laneTokens] ?? eosId,
          weight: strip.weights[laneTokens] ?? 0,
          start: strip.starts[laneTokens] ?? 0,
        }
      : undefined;
    tape.position = goesOn ? tape.tape.lastPosition : { document: null, position: 0 };
    this.#tokens += Math.min(filled, laneTokens);
    return strip;
  }

  /** Makes the part of a strip from `start` on a segment. */
  #place({ tokens, weights, starts }: TapeTarget, start: number, into: Rows): void {
    const { resetAtDocumentEnd, sequence } = this.#options.tbptt;
    const end = start + into.tokens.length;
    into.tokens.set(tokens.subarray(start, end));
    into.labels.set(tokens.subarray(start + 1, end + 1));
    into.weights.set(weights.subarray(start + 1, end + 1));
    if (resetAtDocumentEnd) into.resets.set(starts.subarray(start, end));
    if (!resetAtDocumentEnd && sequence === "contiguous") return;
    for (let i = 0; i < into.weights.length; i++) if (starts[start + i + 1]) into.weights[i] = 0;
  }

  /** The segments of the step at which the lane begins a chain. */
  #chainStartsOf(lane: number, settings: SegmentCutterOptions["tbptt"]): readonly number[] {
    const at = { seed: this.#options.seed, lane, step: this.#step, segmentsInChain: this.#segmentsInChain[lane] ?? 0 };
    const { segments, segmentsInChain } = chainStarts(settings, at);
    this.#segmentsInChain[lane] = segmentsInChain;
    return segments;
  }

  #cursor(): DataCursor {
    return {
      step: this.#step,
      ...this.#documents.position,
      lanes: this.#tapes.map(({ position }, lane) => ({ ...position, segmentsInChain: this.#segmentsInChain[lane] ?? 0 })),
      counters: { ...this.#documents.counters, tokens: this.#tokens },
    };
  }
}

function emptyRows(size: number): Rows {
  return {
    tokens: new Int32Array(size),
    labels: new Int32Array(size),
    weights: new Float32Array(size),
    resets: new Uint8Array(size),
  };
}

/** A view. */
function rowsFrom({ tokens, labels, weights, resets }: Rows, start: number, size: number): Rows {
  const end = start + size;
  return {
    tokens: tokens.subarray(start, end),
    labels: labels.subarray(start, end),
    weights: weights.subarray(start, end),
    resets: resets.subarray(start, end),
  };
}

function shardSegment({ tokens, labels, weights, resets }: Rows, shard: number): ShardSegment {
  return {
    shard,
    tokens,
    labels,
    ...(weights.some((weight) => weight !== 1) && { weights }),
    ...(resets.includes(1) && { resets }),
  };
}
