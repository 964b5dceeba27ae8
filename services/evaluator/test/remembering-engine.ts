import { laneStateFloats, parameterLayout, type ModelSpec } from "@segue/core";
import type { Engine, LaneStates, SegmentBatch } from "@segue/engine";

interface Memory extends LaneStates {
  readonly texts: string[];
  /** Characters decoded after the question, per lane. */
  readonly spoken: number[];
}

/**
 * A model that retrieves perfectly as long as its state lives: it remembers every byte since the state was last zeroed and, asked for the
 * passkey, spells what it remembers of it. What it was made to do is on record.
 */
export class RememberingEngine implements Engine {
  readonly description = { name: "cpu", detail: "remembers everything" } as const;
  readonly layout;
  readonly segments: { lanes: number; tokens: number }[] = [];
  liveStates = 0;

  constructor(readonly model: ModelSpec) {
    this.layout = parameterLayout(model);
  }

  createStates(lanes: number): Memory {
    this.liveStates++;
    return { lanes, texts: Array.from({ length: lanes }, () => ""), spoken: Array.from({ length: lanes }, () => 0) };
  }
  forkStates(states: Memory, lane: number, copies: number): Memory {
    const { texts, spoken } = states;
    return Object.assign(this.createStates(copies), {
      texts: Array<string>(copies).fill(texts[lane]!),
      spoken: Array<number>(copies).fill(spoken[lane]!),
    });
  }
  freeStates(): void {
    this.liveStates--;
  }
  zeroStates(states: Memory, part: "ssm" | "conv"): void {
    if (part === "ssm") states.texts.fill("");
  }

  prefill(batch: Pick<SegmentBatch, "lanes" | "tokens" | "tokens_BT">, states: Memory): Float32Array {
    const { lanes, tokens, tokens_BT } = batch;
    this.segments.push({ lanes, tokens });
    const logits_BV = new Float32Array(lanes * this.model.vocab);
    for (let lane = 0; lane < lanes; lane++) {
      states.texts[lane] += Buffer.from(tokens_BT.subarray(lane * tokens, (lane + 1) * tokens)).toString("latin1");
      const [, key = ""] = /passkey is (\d+)\. Remember it/.exec(states.texts[lane] ?? "") ?? [];
      const next = ` ${key}`.charCodeAt(states.spoken[lane] ?? 0) || ".".charCodeAt(0);
      if (/What is the pass ?key\? The passkey is( \d*)?$/.test(states.texts[lane] ?? "")) states.spoken[lane]!++;
      logits_BV[lane * this.model.vocab + next] = 1;
    }
    return logits_BV;
  }

  readStates(_states: Memory, into: Float32Array): void {
    into.fill(0, 0, laneStateFloats(this.model));
  }
  writeStates(): void {}
  readParameters(): void {}
  writeParameters(): void {}
  readMoments(): void {}
  writeMoments(): void {}
  forwardBackward(): number {
    throw new Error("an evaluation never trains");
  }
  applyAdamW(): number {
    throw new Error("an evaluation never trains");
  }
  score(): Float32Array {
    throw new Error("passkeys are decoded, not scored");
  }
  close(): void {}
}
