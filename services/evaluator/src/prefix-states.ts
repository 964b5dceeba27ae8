import { NO_CURE, type CureSpec, type ModelSpec, type PasskeyPrompt } from "@segue/core";
import { prefillPrompt, type InferenceEngine, type LaneStates } from "@segue/engine";
import { laneBytes } from "./state-memory.js";

type Prefix = Pick<PasskeyPrompt, "read">;

/** Largest piece of a prompt in one forward pass; memory does not grow with the prompt. */
export const SEGMENT_TOKENS = 1024;
const MAX_SNAPSHOTS = 32;
const MAX_SNAPSHOT_BYTES = 256 * 2 ** 20;

/** As many as fit the memory that they may take. */
export function mostSnapshots(model: ModelSpec, cure: CureSpec): number {
  return Math.max(1, Math.min(MAX_SNAPSHOTS, Math.floor(MAX_SNAPSHOT_BYTES / laneBytes(model, cure))));
}

interface Snapshot {
  /** Tokens before it, a multiple of SEGMENT_TOKENS. */
  readonly tokens: number;
  readonly states: LaneStates;
}

/**
 * States of one lane after the first tokens of a text that many prompts begin with, here the filler before a passkey. The text is run once:
 * states along the way are kept, few enough for constant memory, and later calls go on from the nearest. Pieces are cut at multiples of
 * SEGMENT_TOKENS from the start of the text, so that a state has the same bits whatever was asked for before.
 */
export class PrefixStates {
  readonly #engine: InferenceEngine;
  readonly #most: number;
  /** Of the same text, the least recently used first. */
  #snapshots: Snapshot[] = [];
  #text: { readonly prefix: Prefix; readonly tokens: number } | undefined;
  #ran = 0;

  /** @param most snapshots that are kept at once */
  constructor(engine: InferenceEngine, most = mostSnapshots(engine.model, NO_CURE)) {
    this.#engine = engine;
    this.#most = most;
  }

  /** Tokens the model was run on so far. */
  get tokensRun(): number {
    return this.#ran;
  }

  /** The state after the first `tokens` of a prompt, which must not be zero; the caller frees it. */
  after(prefix: Prefix, tokens: number): LaneStates {
    this.#follow(prefix, tokens);
    const whole = tokens - (tokens % SEGMENT_TOKENS);
    const states = this.#at(whole, prefix);
    try {
      this.#run(states, prefix, whole, tokens);
      return states;
    } catch (error) {
      this.#engine.freeStates(states);
      throw error;
    }
  }

  /** Frees all states that are kept. */
  clear(): void {
    for (const { states } of this.#snapshots) this.#engine.freeStates(states);
    this.#snapshots = [];
    this.#text = undefined;
  }

  /** A state of the caller's after `whole` tokens, itself kept for later. */
  #at(whole: number, prefix: Prefix): LaneStates {
    const before = this.#snapshots.filter(({ tokens }) => tokens <= whole);
    const nearest = before.reduce<Snapshot | undefined>((a, b) => (a && a.tokens > b.tokens ? a : b), undefined);
    const states = nearest ? this.#engine.forkStates(nearest.states, 0, 1) : this.#engine.createStates(1);
    try {
      this.#run(states, prefix, nearest?.tokens ?? 0, whole);
      if (nearest?.tokens === whole) this.#keep(nearest);
      else if (whole > 0) this.#keep({ tokens: whole, states: this.#engine.forkStates(states, 0, 1) });
      return states;
    } catch (error) {
      this.#engine.freeStates(states);
      throw error;
    }
  }

  #run(states: LaneStates, { read }: Prefix, from: number, to: number): void {
    if (to === from) return;
    const prompt = { lanes: 1, tokens: to - from, read: (_: number, at: number, count: number) => read(from + at, count) };
    prefillPrompt(this.#engine, states, prompt, SEGMENT_TOKENS);
    this.#ran += to - from;
  }

  #keep(snapshot: Snapshot): void {
    this.#snapshots = [...this.#snapshots.filter((kept) => kept !== snapshot), snapshot];
    const surplus = this.#snapshots.splice(0, this.#snapshots.length - this.#most);
    for (const { states } of surplus) this.#engine.freeStates(states);
  }

  /** Forgets the snapshots when they are of another text. */
  #follow(prefix: Prefix, tokens: number): void {
    const text = this.#text;
    if (text && !agree(text.prefix, prefix, Math.min(text.tokens, tokens))) this.clear();
    if (!this.#text || this.#text.tokens < tokens) this.#text = { prefix, tokens };
  }
}

function agree(a: Prefix, b: Prefix, tokens: number): boolean {
  for (let at = 0; at < tokens; at += SEGMENT_TOKENS) {
    const count = Math.min(SEGMENT_TOKENS, tokens - at);
    const own = a.read(at, count);
    if (b.read(at, count).some((token, index) => token !== own[index])) return false;
  }
  return true;
}
