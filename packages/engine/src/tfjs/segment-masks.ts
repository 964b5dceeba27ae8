/**
 * What a document start inside a segment cuts off, as constant factors. All are computed from `resets_BT`, before any tensor exists.
 * B lanes, T tokens, W taps of the convolution, Z chunks of all lanes, Q tokens per chunk; tokens padded up to whole chunks reset nothing.
 */
export interface ScanMasks {
  /** Added to log-decays: 0 where token s (column) may reach token t (row), else very negative. [Z or 1, Q, Q] */
  readonly reach_ZQQ: Float32Array;
  /** Present with resets only. 1 where a token still sees the state its chunk started with. */
  readonly seesStart_ZQ?: Float32Array;
  /** 1 where a token's contribution survives to the end of its chunk. */
  readonly reachesEnd_ZQ?: Float32Array;
  /** 1 where the state at the start of a chunk survives the chunk. */
  readonly keepsState_Z?: Float32Array;
}

/** exp of it is 0, yet sums of it stay finite. */
const UNREACHABLE = -1e30;

export function scanMasks(lanes: number, tokens: number, chunk: number, resets_BT: Uint8Array | undefined): ScanMasks {
  if (!resets_BT?.includes(1)) return { reach_ZQQ: reach(1, chunk, () => 0) };
  const chunksPerLane = Math.ceil(tokens / chunk);
  const chunks = lanes * chunksPerLane;
  // Documents are numbered within each chunk: 0 is the one that was running when the chunk began.
  const documents_ZQ = new Int32Array(chunks * chunk);
  for (let z = 0; z < chunks; z++) {
    const lane = Math.floor(z / chunksPerLane);
    const first = (z % chunksPerLane) * chunk;
    let document = 0;
    for (let q = 0; q < chunk; q++) {
      if (first + q < tokens && resets_BT[lane * tokens + first + q]) document++;
      documents_ZQ[z * chunk + q] = document;
    }
  }
  const documentAt = (z: number, q: number): number => documents_ZQ[z * chunk + q] as number;
  const flags = (test: (z: number, q: number) => boolean): Float32Array =>
    Float32Array.from(documents_ZQ, (_, i) => (test(Math.floor(i / chunk), i % chunk) ? 1 : 0));
  return {
    reach_ZQQ: reach(chunks, chunk, documentAt),
    seesStart_ZQ: flags((z, q) => documentAt(z, q) === 0),
    reachesEnd_ZQ: flags((z, q) => documentAt(z, q) === documentAt(z, chunk - 1)),
    keepsState_Z: Float32Array.from({ length: chunks }, (_, z) => (documentAt(z, chunk - 1) === 0 ? 1 : 0)),
  };
}

function reach(chunks: number, chunk: number, documentAt: (z: number, q: number) => number): Float32Array {
  const mask = new Float32Array(chunks * chunk * chunk).fill(UNREACHABLE);
  for (let z = 0; z < chunks; z++) {
    for (let t = 0; t < chunk; t++) {
      for (let s = 0; s <= t; s++) if (documentAt(z, s) === documentAt(z, t)) mask[(z * chunk + t) * chunk + s] = 0;
    }
  }
  return mask;
}

export interface ConvMasks {
  /** By age, 1 to W - 1 at index age - 1: 1 where a token still sees the row `age` tokens before it. [B, T] each */
  readonly sees_BT: readonly Float32Array[];
  /** 1 where a carried row, oldest first, belongs to the document running at the end. [B, W - 1] */
  readonly carried_BW: Float32Array;
}

export function convMasks(lanes: number, tokens: number, taps: number, resets_BT: Uint8Array | undefined): ConvMasks | undefined {
  if (!resets_BT?.includes(1)) return undefined;
  // Tokens of the running document up to and including each token; before the first reset there is no limit.
  const seen_BT = new Float64Array(lanes * tokens);
  for (let lane = 0; lane < lanes; lane++) {
    let seen = Infinity;
    for (let t = lane * tokens; t < (lane + 1) * tokens; t++) {
      seen = resets_BT[t] ? 1 : seen + 1;
      seen_BT[t] = seen;
    }
  }
  const carried = taps - 1;
  return {
    sees_BT: Array.from({ length: carried }, (_, i) => Float32Array.from(seen_BT, (seen) => (seen > i + 1 ? 1 : 0))),
    carried_BW: Float32Array.from({ length: lanes * carried }, (_, i) => {
      const seen = seen_BT[(Math.floor(i / carried) + 1) * tokens - 1] as number;
      return carried - (i % carried) <= seen ? 1 : 0;
    }),
  };
}
