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
  // Cures of inference: added to every dt A, and a factor of what every token adds to the state.
  double log_retention = 0;
  float insertion = 1;
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

}  // namespace SEGUE_VARIANT
