// Decays within a chunk of the scan, from the running sums of dt A.
#pragma once
#include "scan.h"

namespace SEGUE_VARIANT {

// The decays of one head in one chunk of q tokens.
struct Decays {
  // cs_t as a sum of two floats: differences of long sums keep their precision.
  float *high, *low;
  // What inserts a token: dt_t, but for cures.
  float* dt;
  // exp(cs_t), 0 once a document started in the chunk.
  float* from_start;
  // exp(cs_end - cs_t), 0 before the chunk's last document start; and the same times dt_t.
  float *to_end, *dt_to_end;
  // First token of the chunk that token t sees, and whether a document starts there.
  int* first;
  // exp(cs_end), 0 if a document starts in the chunk.
  float whole;
};

// Floats that cut_decays takes.
static inline long decay_floats(const Scan& s, long q) {
  long arrays = 7 * round_up(round_up(q, kWidth), 16);
  return s.heads_per_group * (arrays + (long)(sizeof(Decays) / 4)) + 16;
}

// Room for the decays of all heads of a group.
static inline Decays* cut_decays(const Scan& s, Cutter& memory, long q) {
  long padded = round_up(q, kWidth);
  Decays* decays = (Decays*)memory.take(s.heads_per_group * (long)(sizeof(Decays) / 4));
  for (long i = 0; i < s.heads_per_group; i++) {
    Decays& d = decays[i];
    d.high = memory.take(padded), d.low = memory.take(padded), d.dt = memory.take(padded);
    d.from_start = memory.take(padded), d.to_end = memory.take(padded), d.dt_to_end = memory.take(padded);
    d.first = (int*)memory.take(padded);
  }
  return decays;
}

static void compute_decays(const Scan& s, long task, long head, Decays& d) {
  long q = s.length(task), row = s.first_row(task), start = task % s.chunks * s.chunk, padded = round_up(q, kWidth);
  double a = -exp((double)s.a_log[head]), cs = 0;
  for (long t = 0; t < q; t++) {
    float dt = s.dt[(row + t) * s.heads + head];
    cs = cs + a * dt + s.log_retention;
    d.dt[t] = dt * s.insertion;
    d.high[t] = (float)cs;
    d.low[t] = (float)(cs - d.high[t]);
    d.first[t] = (int)max_long(s.since[row + t] - start, -1);
  }
  for (long t = q; t < padded; t++) d.dt[t] = d.high[t] = d.low[t] = 0, d.first[t] = -1;
  float end_high = d.high[q - 1], end_low = d.low[q - 1];
  int last_start = d.first[q - 1];
  for (long t = 0; t < padded; t += kWidth) {
    Vec high = load(d.high + t), low = load(d.low + t);
    store(d.from_start + t, exp_vec(high + low));
    store(d.to_end + t, exp_vec((end_high - high) + (end_low - low)));
  }
  d.whole = last_start < 0 ? d.from_start[q - 1] : 0.f;
  for (long t = 0; t < padded; t++) {
    if (d.first[t] >= 0 || t >= q) d.from_start[t] = 0;
    if (t < last_start || t >= q) d.to_end[t] = 0;
    d.dt_to_end[t] = d.to_end[t] * d.dt[t];
  }
}

static inline void group_decays(const Scan& s, long task, long group, Decays* decays) {
  for (long i = 0; i < s.heads_per_group; i++) compute_decays(s, task, group * s.heads_per_group + i, decays[i]);
}

// Rows of exp(cs_t - cs_s), zero where s > t or a document starts in (s, t]. Rows are taken in blocks of kWidth from `block` on:
// for s before the block, exp(cs_t - cs_s) = exp(cs_t - cs_block) exp(cs_block - cs_s), two factors of at most 1, so that only the
// diagonal needs an exponential per element.
struct DecayRows {
  const Decays& d;
  // exp(cs_block - cs_s) for s before the block; kept by the caller.
  float* before_block;
  long block;
  Vec in_block;

  DecayRows(const Decays& decays, float* memory) : d(decays), before_block(memory), block(-1), in_block{} {}

  // To be called with t = 0, 1, 2, ...
  void start_row(long t) {
    if (t % kWidth != 0) return;
    block = t;
    Vec high = splat(d.high[t]), low = splat(d.low[t]);
    for (long s = 0; s < t; s += kWidth) store(before_block + s, exp_vec((high - load(d.high + s)) + (low - load(d.low + s))));
    in_block = exp_vec((load(d.high + t) - high) + (load(d.low + t) - low));
  }

  // Elements s to s + kWidth of row t.
  Vec at(long t, long s) const {
    Vec e;
    if (s < block) {
      e = load(before_block + s) * in_block[t - block];
      if (s >= d.first[t]) return e;
    } else {
      e = exp_vec((d.high[t] - load(d.high + s)) + (d.low[t] - load(d.low + s)));
    }
    return keep_lanes(e, (int)(d.first[t] - s), (int)(t + 1 - s));
  }
};

}  // namespace SEGUE_VARIANT
