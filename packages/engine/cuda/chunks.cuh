// The SSD chunk scan on tensor cores (paper.md 7.5, 7.6): bf16 factors, float32 sums, states and decays. Each lane is cut into chunks
// of kChunk tokens. With cs_t the running sum of dt A in a chunk and everything zero across a document's start,
//   y_t = sum_{s <= t} e(t, s) dt_s (C_t . B_s) x_s + exp(cs_t) S C_t + D x_t,   e(t, s) = exp(cs_t - cs_s), S the state before,
//   S'  = exp(cs_end) S + sum_s exp(cs_end - cs_s) dt_s x_s (outer) B_s.
// States go from chunk to chunk in one kernel (scan_states); what happens within chunks is done for all of them at once. C B^T is
// shared by the heads of a group, so that a block takes one chunk and all heads of a group.
//
// scan-decays.cu, then scan-states.cu; then scan-outputs.cu, or, going back, scan-states.cu again and scan-gradients.cu.
#pragma once
#include "tiles.cuh"

// Defined when compiled: HEAD_DIM and STATE, multiples of 16.
constexpr int P = HEAD_DIM, N = STATE;
constexpr int kChunk = 64;
// Tiles of 16 x 16 along the chunk, P and N.
constexpr int kTimes = kChunk / 16, kHeads16 = P / 16, kStates16 = N / 16;
// Rows in shared memory are 16 bytes longer than their contents: eight of them begin in different banks.
constexpr int kStrideP = P + 8, kStrideN = N + 8;

extern __shared__ __align__(128) unsigned char shared_memory[];

// The chunks of all lanes.
struct Scan {
  int tokens, heads, groups, chunks;
  // [lanes, chunks, heads, 2, kChunk]: cs_t in units of log2, and what inserts token t, dt_t but for cures; 0 beyond the end.
  const float* decays;
  // [lanes, chunks, kChunk]: the last token of the chunk up to t at which a document starts, or -1.
  const int* starts;
  const bf16* xbc;

  __device__ __forceinline__ int channels() const { return heads * P + 2 * groups * N; }
  __device__ __forceinline__ i64 row(int lane, int chunk) const { return (i64)lane * tokens + chunk * kChunk; }
  __device__ __forceinline__ int live(int chunk) const { return min(kChunk, tokens - chunk * kChunk); }
  __device__ __forceinline__ i64 unit(int lane, int chunk, int head) const { return ((i64)lane * chunks + chunk) * heads + head; }
  __device__ __forceinline__ const bf16* x(i64 row, int head) const { return xbc + row * channels() + head * P; }
  __device__ __forceinline__ const bf16* b(i64 row, int group) const { return xbc + row * channels() + heads * P + group * N; }
  __device__ __forceinline__ const bf16* c(i64 row, int group) const { return b(row, group) + groups * N; }
};

// What a chunk's decays say of token t.
struct Decay {
  const float* cs;
  const float* dt;
  const int* start;
  __device__ __forceinline__ float from_start(int t) const { return start[t] < 0 ? fast_exp2(cs[t]) : 0.f; }
  __device__ __forceinline__ float to_end(int t) const {
    return t >= start[kChunk - 1] ? fast_exp2(cs[kChunk - 1] - cs[t]) : 0.f;
  }
  __device__ __forceinline__ float whole() const { return from_start(kChunk - 1); }
};
