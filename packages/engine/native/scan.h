// The SSD chunk scan, forward and backward, with states in and out (paper.md 7.5, 7.6). Lanes are cut into chunks; chunks are
// worked on in any order, and only the states between them are passed from one to the next. Formulas token by token:
// src/devices/reference/scan.ts.
//
// Within a chunk, cs_t is the running sum of dt A. Then, with x'_s = dt_s x_s and everything zero across a document start,
//   y_t  = sum_{s <= t} exp(cs_t - cs_s) (C_t . B_s) x'_s  +  exp(cs_t) S C_t  +  D x_t,      S the state before the chunk,
//   S'   = exp(cs_end) S + sum_s exp(cs_end - cs_s) x'_s (outer) B_s.
// M = (C B^T) o exp(cs_t - cs_s) is lower triangular; C B^T is shared by the heads of a group.
#pragma once
#include "mixer.h"

namespace SEGUE_VARIANT {

constexpr int kSlotTasks = 8, kSlotScan = 9;

struct Scan {
  Context* ctx;
  long lanes, tokens, heads, head_dim, state, groups, chunk;
  const int* since;
  const float *xbc, *dt, *a_log, *skip;
  long channels, inner, chunks, lane_floats, heads_per_group, group_width;
  // Row stride of scratch that holds all heads of a group: off the powers of two, whose rows would fight for the same cache lines.
  long wide;

  long tasks() const { return lanes * chunks; }
  long length(long task) const { return min_long(chunk, tokens - task % chunks * chunk); }
  long first_row(long task) const { return task / chunks * tokens + task % chunks * chunk; }
  const float* x(long row, long head) const { return xbc + row * channels + head * head_dim; }
  long b_column(long group) const { return inner + group * state; }
  long c_column(long group) const { return inner + (groups + group) * state; }
};

static Scan make_scan(Context* ctx, int lanes, int tokens, int heads, int head_dim, int state, int groups, int chunk,
                      const int* resets, const float* xbc, const float* dt, const float* a_log, const float* skip) {
  Scan s = {ctx, lanes, tokens, heads, head_dim, state, groups, chunk, document_starts(ctx, lanes, tokens, resets),
            xbc, dt,    a_log,  skip};
  s.inner = (long)heads * head_dim;
  s.channels = s.inner + 2l * groups * state;
  s.chunks = (tokens + chunk - 1) / chunk;
  s.lane_floats = s.inner * state;
  s.heads_per_group = heads / groups;
  s.group_width = s.heads_per_group * head_dim;
  s.wide = round_up(s.group_width, 16) + 16;
  return s;
}

// Scratch of one task, cut from one stretch.
struct Cutter {
  float* next;
  float* take(long floats) {
    float* p = next;
    next += round_up(floats, 16);
    return p;
  }
};

// The decays of one head in one chunk of q tokens.
struct Decays {
  // cs_t as a sum of two floats: differences of long sums keep their precision.
  float *high, *low;
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
    cs += a * dt;
    d.dt[t] = dt;
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

// Padded extents of one chunk of q tokens, and the chunk's place.
struct Chunk {
  long q, row, rows, head_cols, state_cols;
};

static inline Chunk make_chunk(const Scan& s, long task) {
  long q = s.length(task);
  return {q, s.first_row(task), round_up(q, kWidth), round_up(s.head_dim, kWidth), round_up(s.state, kWidth)};
}

// out [rows, cols] = in [q, width] with rows `stride` apart, zeros around.
static inline void copy_padded(const float* in, long stride, long q, long width, float* out, long rows, long cols) {
  for (long t = 0; t < q; t++) {
    for (long i = 0; i < cols; i += kWidth) store(out + t * cols + i, load_part(in + t * stride + i, width - i));
  }
  memset(out + q * cols, 0, (size_t)((rows - q) * cols) * 4);
}

// out [width, cols] = in [q, width] transposed, zeros behind.
static inline void copy_transposed(const float* in, long stride, long q, long width, float* out, long cols) {
  long t = 0;
  for (; t + 4 <= q; t += 4) {
    long i = 0;
    for (; i + 4 <= width; i += 4) transpose_quads(in + t * stride + i, stride, out + i * cols + t, cols);
    for (; i < width; i++) {
      for (long j = 0; j < 4; j++) out[i * cols + t + j] = in[(t + j) * stride + i];
    }
  }
  for (; t < cols; t++) {
    for (long i = 0; i < width; i++) out[i * cols + t] = t < q ? in[t * stride + i] : 0.f;
  }
}

// out [q, wide]: the rows of all heads of a group, row t of head i times decays[i].*scale[t]. Whole rows at a time: the rows are
// met here for the first time, and the processor fetches ahead only along them.
static inline void scale_rows(const Scan& s, long q, const float* in, long stride, const Decays* decays, float* Decays::* scale,
                              float* out) {
  for (long t = 0; t < q; t++) {
    for (long i = 0; i < s.heads_per_group; i++) {
      const float* from = in + t * stride + i * s.head_dim;
      float factor = (decays[i].*scale)[t];
      for (long p = 0; p < s.head_dim; p += kWidth) {
        store_part(out + t * s.wide + i * s.head_dim + p, s.head_dim - p, load_part(from + p, s.head_dim - p) * factor);
      }
    }
  }
}

// Lower triangle, in whole vectors, of a [q, depth] times b [depth, rows]; all padded. out has rows of `rows` floats.
static inline void lower_product(const Chunk& k, long depth, const float* a, long a_stride, const float* b, float* out) {
  for (long t = 0; t < k.q; t += kSmallRows) {
    small_rows<kSmallRows>(round_up(t + kSmallRows, kWidth), depth, {a + t * a_stride, a_stride, 1}, b, k.rows, out + t * k.rows,
                           k.rows);
  }
}

// out [q, cols] = l v for lower triangular l.
static inline void apply_lower(const Chunk& k, const float* l, const float* v, long cols, float* out) {
  for (long t = 0; t < k.q; t += kSmallRows) {
    small_rows<kSmallRows>(cols, t + kSmallRows, {l + t * k.rows, k.rows, 1}, v, cols, out + t * cols, cols);
  }
}

// out [q, cols] = l^T v
static inline void apply_lower_transposed(const Chunk& k, const float* l, const float* v, long cols, float* out) {
  for (long t = 0; t < k.q; t += kSmallRows) {
    small_rows<kSmallRows>(cols, k.q - t, {l + t * k.rows + t, 1, k.rows}, v + t * cols, cols, out + t * cols, cols);
  }
}

// Z [group, head_dim, state] of one chunk: what its tokens add to the state at its end. Also notes each head's decay over the
// chunk.
static void local_states(const Scan& s, long task, float* z, float* whole) {
  Chunk k = make_chunk(s, task);
  Cutter memory = {my_scratch(s.ctx, kSlotScan, decay_floats(s, k.q) + k.q * s.wide + 16)};
  Decays* decays = cut_decays(s, memory, k.q);
  float* weighted = memory.take(k.q * s.wide);
  for (long group = 0; group < s.groups; group++) {
    group_decays(s, task, group, decays);
    for (long i = 0; i < s.heads_per_group; i++) whole[group * s.heads_per_group + i] = decays[i].whole;
    scale_rows(s, k.q, s.x(k.row, group * s.heads_per_group), s.channels, decays, &Decays::dt_to_end, weighted);
    small_product(s.ctx, s.group_width, s.state, k.q, {weighted, 1, s.wide},
                  {s.xbc + k.row * s.channels + s.b_column(group), s.channels, 1}, z + group * s.group_width * s.state, s.state);
  }
}

// Replaces what each chunk adds by the state before it; `state` enters as the first and leaves as the last.
static void pass_states(const Scan& s, long lane, long head, float* chunk_states, const float* whole, float* state) {
  long floats = s.head_dim * s.state;
  for (long chunk = 0; chunk < s.chunks; chunk++) {
    float* slot = chunk_states + ((lane * s.chunks + chunk) * s.heads + head) * floats;
    float decay = whole[(lane * s.chunks + chunk) * s.heads + head];
    for (long i = 0; i < floats; i += kWidth) {
      long live = floats - i;
      Vec added = load_part(slot + i, live), before = load_part(state + i, live);
      store_part(slot + i, live, before);
      store_part(state + i, live, before * decay + added);
    }
  }
}

static void chunk_outputs(const Scan& s, long task, const float* states, float* y) {
  Chunk k = make_chunk(s, task);
  long square = k.rows * k.rows, head_block = k.rows * k.head_cols, state_block = k.rows * k.state_cols;
  Cutter memory = {my_scratch(
      s.ctx, kSlotScan,
      decay_floats(s, k.q) + 2 * (square + head_block) + state_block + s.state * k.rows + k.q * s.wide + k.rows + 16 * 9)};
  Decays* decays = cut_decays(s, memory, k.q);
  float *g = memory.take(square), *m = memory.take(square), *x = memory.take(head_block), *within = memory.take(head_block);
  float *c = memory.take(state_block), *b_transposed = memory.take(s.state * k.rows), *carried = memory.take(k.q * s.wide);
  float* before_block = memory.take(k.rows);
  for (long group = 0; group < s.groups; group++) {
    const float *bs = s.xbc + k.row * s.channels + s.b_column(group), *cs = s.xbc + k.row * s.channels + s.c_column(group);
    copy_padded(cs, s.channels, k.q, s.state, c, k.rows, k.state_cols);
    copy_transposed(bs, s.channels, k.q, s.state, b_transposed, k.rows);
    lower_product(k, s.state, c, k.state_cols, b_transposed, g);
    gemm(s.ctx, k.q, s.group_width, s.state, {cs, s.channels, 1}, {states + group * s.group_width * s.state, 1, s.state}, carried,
         s.wide, false);
    group_decays(s, task, group, decays);
    for (long i = 0; i < s.heads_per_group; i++) {
      long head = group * s.heads_per_group + i;
      const Decays& d = decays[i];
      DecayRows decay(d, before_block);
      for (long t = 0; t < k.q; t++) {
        decay.start_row(t);
        for (long j = 0; j <= t; j += kWidth) store(m + t * k.rows + j, decay.at(t, j) * load(g + t * k.rows + j));
      }
      const float* xs = s.x(k.row, head);
      copy_padded(xs, s.channels, k.q, s.head_dim, x, k.rows, k.head_cols);
      for (long t = 0; t < k.q; t++) {
        for (long p = 0; p < k.head_cols; p += kWidth) store(x + t * k.head_cols + p, load(x + t * k.head_cols + p) * d.dt[t]);
      }
      apply_lower(k, m, x, k.head_cols, within);
      for (long t = 0; t < k.q; t++) {
        for (long p = 0; p < s.head_dim; p += kWidth) {
          long live = s.head_dim - p;
          Vec out =
              load(within + t * k.head_cols + p) + load_part(carried + t * s.wide + i * s.head_dim + p, live) * d.from_start[t];
          store_part(y + (k.row + t) * s.inner + head * s.head_dim + p, live,
                     out + load_part(xs + t * s.channels + p, live) * s.skip[head]);
        }
      }
    }
  }
}

// What the chunk's outputs say about the state before it: sum_t exp(cs_t) dy_t (outer) C_t.
static void local_state_gradients(const Scan& s, long task, const float* d_y, float* d_states, float* whole) {
  Chunk k = make_chunk(s, task);
  Cutter memory = {my_scratch(s.ctx, kSlotScan, decay_floats(s, k.q) + k.q * s.wide + 16)};
  Decays* decays = cut_decays(s, memory, k.q);
  float* weighted = memory.take(k.q * s.wide);
  for (long group = 0; group < s.groups; group++) {
    group_decays(s, task, group, decays);
    for (long i = 0; i < s.heads_per_group; i++) whole[group * s.heads_per_group + i] = decays[i].whole;
    scale_rows(s, k.q, d_y + k.row * s.inner + group * s.group_width, s.inner, decays, &Decays::from_start, weighted);
    small_product(s.ctx, s.group_width, s.state, k.q, {weighted, 1, s.wide},
                  {s.xbc + k.row * s.channels + s.c_column(group), s.channels, 1}, d_states + group * s.group_width * s.state,
                  s.state);
  }
}

// Replaces the local gradients by the gradient of the state after each chunk; `outside` enters as that of the final state (null:
// zero) and leaves as that of the initial one.
static void pass_state_gradients(const Scan& s, long lane, long head, float* d_states, const float* whole, float* outside) {
  long floats = s.head_dim * s.state;
  for (long i = 0; i < floats; i += kWidth) {
    long live = floats - i;
    Vec after = outside ? load_part(outside + i, live) : Vec{};
    for (long chunk = s.chunks - 1; chunk >= 0; chunk--) {
      float* slot = d_states + ((lane * s.chunks + chunk) * s.heads + head) * floats + i;
      Vec local = load_part(slot, live);
      store_part(slot, live, after);
      after = after * whole[(lane * s.chunks + chunk) * s.heads + head] + local;
    }
    if (outside) store_part(outside + i, live, after);
  }
}

struct ScanGradients {
  const float* d_y;
  float *d_xbc, *d_dt;
  // Per task and head: gradient of A, then of the skip.
  float* sums;
};

// Everything else: gradients of x, B, C, dt, and this chunk's share of those of A and D. With x'_s = dt_s x_s, u_s is the gradient
// of x'_s, and d_cs_t that of cs_t; the gradient of dt_t A is the sum of d_cs over the tokens from t on.
static void chunk_gradients(const Scan& s, long task, const float* states, const float* d_states, const ScanGradients& out) {
  Chunk k = make_chunk(s, task);
  long square = k.rows * k.rows, head_block = k.rows * k.head_cols, state_block = k.rows * k.state_cols, wide = k.q * s.wide;
  Cutter memory = {my_scratch(
      s.ctx, kSlotScan,
      decay_floats(s, k.q) + 4 * square + 3 * head_block + 3 * state_block + s.state * k.rows + 4 * wide + 4 * k.rows + 16 * 24)};
  Decays* decays = cut_decays(s, memory, k.q);
  float *g = memory.take(square), *m = memory.take(square), *d_m = memory.take(square), *d_g = memory.take(square);
  float *x_transposed = memory.take(head_block), *dy = memory.take(head_block), *u = memory.take(head_block);
  float *b = memory.take(state_block), *c = memory.take(state_block), *product = memory.take(state_block);
  float* b_transposed = memory.take(s.state * k.rows);
  float *dy_decayed = memory.take(wide), *x_decayed = memory.take(wide), *carried = memory.take(wide), *w = memory.take(wide);
  float *d_cs = memory.take(k.rows), *columns = memory.take(k.rows), *direct = memory.take(k.rows),
        *before_block = memory.take(k.rows);

  for (long group = 0; group < s.groups; group++) {
    const float *bs = s.xbc + k.row * s.channels + s.b_column(group), *cs = s.xbc + k.row * s.channels + s.c_column(group);
    float *d_b = out.d_xbc + k.row * s.channels + s.b_column(group), *d_c = out.d_xbc + k.row * s.channels + s.c_column(group);
    const float* before = states + group * s.group_width * s.state;
    const float* d_after = d_states + group * s.group_width * s.state;
    copy_padded(bs, s.channels, k.q, s.state, b, k.rows, k.state_cols);
    copy_padded(cs, s.channels, k.q, s.state, c, k.rows, k.state_cols);
    copy_transposed(bs, s.channels, k.q, s.state, b_transposed, k.rows);
    lower_product(k, s.state, c, k.state_cols, b_transposed, g);
    memset(d_g, 0, (size_t)square * 4);

    group_decays(s, task, group, decays);
    scale_rows(s, k.q, out.d_y + k.row * s.inner + group * s.group_width, s.inner, decays, &Decays::from_start, dy_decayed);
    scale_rows(s, k.q, s.x(k.row, group * s.heads_per_group), s.channels, decays, &Decays::dt_to_end, x_decayed);
    // All heads of the group at once: what passes through the states before and after the chunk.
    small_product(s.ctx, k.q, s.state, s.group_width, {dy_decayed, s.wide, 1}, {before, s.state, 1}, d_c, s.channels);
    gemm(s.ctx, k.q, s.group_width, s.state, {cs, s.channels, 1}, {before, 1, s.state}, carried, s.wide, false);
    gemm(s.ctx, k.q, s.group_width, s.state, {bs, s.channels, 1}, {d_after, 1, s.state}, w, s.wide, false);
    small_product(s.ctx, k.q, s.state, s.group_width, {x_decayed, s.wide, 1}, {d_after, s.state, 1}, d_b, s.channels);

    for (long i = 0; i < s.heads_per_group; i++) {
      long head = group * s.heads_per_group + i;
      const float *xs = s.x(k.row, head), *dys = out.d_y + k.row * s.inner + head * s.head_dim;
      float* d_x = out.d_xbc + k.row * s.channels + head * s.head_dim;
      const Decays& d = decays[i];
      copy_padded(dys, s.inner, k.q, s.head_dim, dy, k.rows, k.head_cols);
      copy_transposed(xs, s.channels, k.q, s.head_dim, x_transposed, k.rows);
      for (long p = 0; p < s.head_dim; p++) {
        for (long t = 0; t < k.rows; t += kWidth)
          store(x_transposed + p * k.rows + t, load(x_transposed + p * k.rows + t) * load(d.dt + t));
      }
      lower_product(k, s.head_dim, dy, k.head_cols, x_transposed, d_m);
      memset(columns, 0, (size_t)k.rows * 4);
      DecayRows decay_rows(d, before_block);
      for (long t = 0; t < k.q; t++) {
        decay_rows.start_row(t);
        Vec row_sum = {};
        for (long j = 0; j <= t; j += kWidth) {
          Vec decay = decay_rows.at(t, j), gradient = load(d_m + t * k.rows + j), value = decay * load(g + t * k.rows + j);
          store(m + t * k.rows + j, value);
          store(d_g + t * k.rows + j, load(d_g + t * k.rows + j) + gradient * decay);
          Vec both = gradient * value;
          row_sum += both;
          store(columns + j, load(columns + j) + both);
        }
        d_cs[t] = sum_lanes(row_sum);
      }
      apply_lower_transposed(k, m, dy, k.head_cols, u);

      float end = 0;
      Vec to_skip = {};
      for (long t = 0; t < k.q; t++) {
        const long at = t * s.wide + i * s.head_dim;
        Vec through_start = {}, through_end = {}, to_dt = {};
        for (long p = 0; p < s.head_dim; p += kWidth) {
          long live = s.head_dim - p;
          Vec xv = load_part(xs + t * s.channels + p, live), dyv = load(dy + t * k.head_cols + p), wv = load_part(w + at + p, live);
          Vec uv = load(u + t * k.head_cols + p) + wv * d.to_end[t];
          through_start += load_part(dy_decayed + at + p, live) * load_part(carried + at + p, live);
          through_end += xv * wv;
          to_dt += xv * uv;
          to_skip += xv * dyv;
          store_part(d_x + t * s.channels + p, live, uv * d.dt[t] + dyv * s.skip[head]);
        }
        float inserted = sum_lanes(through_end) * d.dt_to_end[t];
        d_cs[t] += sum_lanes(through_start) - columns[t] - inserted;
        end += inserted;
        direct[t] = sum_lanes(to_dt);
      }
      long head_floats = s.head_dim * s.state;
      d_cs[k.q - 1] += end + d.whole * dot(before + i * head_floats, d_after + i * head_floats, head_floats);

      double a = -exp((double)s.a_log[head]), later = 0, d_a = 0;
      for (long t = k.q - 1; t >= 0; t--) {
        later += d_cs[t];
        // Nothing passes a document start; the sum is zero there but for rounding.
        if (d.first[t] == t) later = 0;
        out.d_dt[(k.row + t) * s.heads + head] = (float)(direct[t] + later * a);
        d_a += later * d.dt[t];
      }
      float* sums = out.sums + task * 2 * s.heads;
      sums[head] = (float)(d_a * a);
      sums[s.heads + head] = sum_lanes(to_skip);
    }

    apply_lower(k, d_g, b, k.state_cols, product);
    for (long t = 0; t < k.q; t++) {
      for (long n = 0; n < s.state; n += kWidth) {
        float* to = d_c + t * s.channels + n;
        store_part(to, s.state - n, load_part(to, s.state - n) + load(product + t * k.state_cols + n));
      }
    }
    apply_lower_transposed(k, d_g, c, k.state_cols, product);
    for (long t = 0; t < k.q; t++) {
      for (long n = 0; n < s.state; n += kWidth) {
        float* to = d_b + t * s.channels + n;
        store_part(to, s.state - n, load_part(to, s.state - n) + load(product + t * k.state_cols + n));
      }
    }
  }
}

}  // namespace SEGUE_VARIANT

SEGUE_API void SEGUE_NAME(scan)(Context* ctx, int lanes, int tokens, int heads, int head_dim, int state_size, int groups, int chunk,
                                const int* resets, const float* xbc, const float* dt, const float* a_log, const float* skip,
                                float* state, double state_stride, float* chunk_states, float* y) {
  using namespace SEGUE_VARIANT;
  const Scan s = make_scan(ctx, lanes, tokens, heads, head_dim, state_size, groups, chunk, resets, xbc, dt, a_log, skip);
  const long tasks = s.tasks(), head_floats = s.head_dim * s.state;
  float* whole = shared_scratch(ctx, kSlotTasks, tasks * s.heads);
  const double floats = (double)s.lanes * s.tokens * s.inner;
  parallel_for(ctx, floats, tasks,
               [&](long task) { local_states(s, task, chunk_states + task * s.lane_floats, whole + task * s.heads); });
  parallel_for(ctx, floats, s.lanes * s.heads, [&](long unit) {
    long lane = unit / s.heads, head = unit % s.heads;
    pass_states(s, lane, head, chunk_states, whole, state + lane * (long)state_stride + head * head_floats);
  });
  parallel_for(ctx, floats, tasks, [&](long task) { chunk_outputs(s, task, chunk_states + task * s.lane_floats, y); });
}

SEGUE_API void SEGUE_NAME(scan_backward)(Context* ctx, int lanes, int tokens, int heads, int head_dim, int state_size, int groups,
                                         int chunk, const int* resets, const float* xbc, const float* dt, const float* a_log,
                                         const float* skip, const float* chunk_states, const float* d_y, float* d_xbc, float* d_dt,
                                         float* d_a_log, float* d_skip, float* d_chunk_states, float* d_state,
                                         double d_state_stride) {
  using namespace SEGUE_VARIANT;
  const Scan s = make_scan(ctx, lanes, tokens, heads, head_dim, state_size, groups, chunk, resets, xbc, dt, a_log, skip);
  const long tasks = s.tasks(), head_floats = s.head_dim * s.state;
  float* whole = shared_scratch(ctx, kSlotTasks, tasks * s.heads * 3 + 2 * s.heads);
  float *sums = whole + tasks * s.heads, *total = sums + 2 * tasks * s.heads;
  const ScanGradients out = {d_y, d_xbc, d_dt, sums};
  const double floats = (double)s.lanes * s.tokens * s.inner;
  parallel_for(ctx, floats, tasks, [&](long task) {
    local_state_gradients(s, task, d_y, d_chunk_states + task * s.lane_floats, whole + task * s.heads);
  });
  parallel_for(ctx, floats, s.lanes * s.heads, [&](long unit) {
    long lane = unit / s.heads, head = unit % s.heads;
    pass_state_gradients(s, lane, head, d_chunk_states, whole,
                         d_state ? d_state + lane * (long)d_state_stride + head * head_floats : nullptr);
  });
  parallel_for(ctx, floats, tasks, [&](long task) {
    chunk_gradients(s, task, chunk_states + task * s.lane_floats, d_chunk_states + task * s.lane_floats, out);
  });
  sum_blocks(sums, tasks, 2 * s.heads, total);
  memcpy(d_a_log, total, (size_t)s.heads * 4);
  memcpy(d_skip, total + s.heads, (size_t)s.heads * 4);
}
