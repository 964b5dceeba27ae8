// Tiles of 16 x 16 in shared memory: how they get there, become factors of products on tensor cores, and leave. Fragments: ptx.cuh.
#pragma once
#include "common.cuh"

// Threads that fetch together: `rank` of `count`.
struct Crew {
  int rank, count;
};
__device__ __forceinline__ Crew everyone() { return {(int)threadIdx.x, (int)blockDim.x}; }

// Asks for rows [kRowCount, kColumns] of bf16; rows from `live` on become zeros.
template <int kRowCount, int kColumns, int kStride>
__device__ __forceinline__ void ask_rows(bf16* to, const bf16* from, i64 stride, int live, Crew crew = everyone()) {
  constexpr int kPieces = kColumns / 8;
  for (int i = crew.rank; i < kRowCount * kPieces; i += crew.count) {
    const int row = i / kPieces, piece = i % kPieces;
    const bool is_live = row < live;
    copy_async_16(to + row * kStride + piece * 8, from + (is_live ? row * stride : 0) + piece * 8, is_live);
  }
}

template <int kFloats>
__device__ __forceinline__ void ask_floats(float* to, const float* from, Crew crew = everyone()) {
  for (int i = crew.rank; i < kFloats / 4; i += crew.count) copy_async_16(to + i * 4, from + i * 4, true);
}

// Fragments of a [16, 16] tile as the first factor, from row-major memory.
template <int kStride>
__device__ __forceinline__ void first_factor(u32 (&a)[4], const bf16* tile) {
  const int lane = threadIdx.x & 31;
  load_matrices(a, tile + (lane & 15) * kStride + (lane >> 4) * 8);
}

// The same of the transpose of what is in memory: element (i, j) is at row j, column i.
template <int kStride>
__device__ __forceinline__ void first_factor_transposed(u32 (&a)[4], const bf16* tile) {
  const int lane = threadIdx.x & 31;
  load_matrices_transposed(a, tile + ((lane & 7) + (lane >> 4) * 8) * kStride + ((lane >> 3) & 1) * 8);
}

// A [16, 16] tile as the second factor, element (k, n) at row n, column k: b[0], b[1] for columns n < 8, then b[2], b[3].
template <int kStride>
__device__ __forceinline__ void second_factor_by_columns(u32 (&b)[4], const bf16* tile) {
  const int lane = threadIdx.x & 31;
  load_matrices(b, tile + ((lane & 7) + (lane >> 4) * 8) * kStride + ((lane >> 3) & 1) * 8);
}

// The same, element (k, n) at row k, column n.
template <int kStride>
__device__ __forceinline__ void second_factor(u32 (&b)[4], const bf16* tile) {
  const int lane = threadIdx.x & 31;
  load_matrices_transposed(b, tile + (lane & 15) * kStride + (lane >> 4) * 8);
}

// acc [16, 16 tiles] += a b for one tile of 16 columns.
__device__ __forceinline__ void multiply(float (&left)[4], float (&right)[4], const u32 (&a)[4], const u32 (&b)[4]) {
  mma_16x8x16(left, a, b[0], b[1]);
  mma_16x8x16(right, a, b[2], b[3]);
}

// Two sums of 16 rows as the first factor of the next product: columns of one tile of 16.
__device__ __forceinline__ void rounded(u32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = pack_bf16(left[0], left[1]), a[1] = pack_bf16(left[2], left[3]);
  a[2] = pack_bf16(right[0], right[1]), a[3] = pack_bf16(right[2], right[3]);
}

// Row r / 4 by `upper`, row r / 4 + 8 by `lower`.
__device__ __forceinline__ void scale_rows(u32 (&a)[4], float upper, float lower) {
  a[0] = pack_bf16(low_half(a[0]) * upper, high_half(a[0]) * upper);
  a[1] = pack_bf16(low_half(a[1]) * lower, high_half(a[1]) * lower);
  a[2] = pack_bf16(low_half(a[2]) * upper, high_half(a[2]) * upper);
  a[3] = pack_bf16(low_half(a[3]) * lower, high_half(a[3]) * lower);
}

__device__ __forceinline__ u32 pair_at(const bf16* at) { return *reinterpret_cast<const u32*>(at); }
__device__ __forceinline__ void put_pair(bf16* at, float first, float second) {
  *reinterpret_cast<u32*>(at) = pack_bf16(first, second);
}

// Rows upper and upper + 8 of an accumulator of kTiles tiles of 8 columns, as bf16; `to` is the first column of row `upper`, the other
// row `below` elements on. Four tiles at a time are exchanged between the four lanes of a row, so that each writes 16 bytes.
template <int kTiles>
__device__ __forceinline__ void put_rows(bf16* to, i64 below, const float (&acc)[kTiles][4], bool is_upper_live, bool is_lower_live) {
  const int q = threadIdx.x & 3;
#pragma unroll
  for (int n = 0; n + 4 <= kTiles; n += 4) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      u32 w[4];
#pragma unroll
      for (int i = 0; i < 4; i++) w[i] = pack_bf16(acc[n + i][2 * half], acc[n + i][2 * half + 1]);
      // Lane q ends with tile n + q: first neighbours swap one of two tiles, then pairs of lanes.
      const u32 got0 = __shfl_xor_sync(kAllLanes, q & 1 ? w[0] : w[1], 1), got1 = __shfl_xor_sync(kAllLanes, q & 1 ? w[2] : w[3], 1);
      const u32 a0 = q & 1 ? got0 : w[0], a1 = q & 1 ? w[1] : got0, b0 = q & 1 ? got1 : w[2], b1 = q & 1 ? w[3] : got1;
      const u32 far0 = __shfl_xor_sync(kAllLanes, q & 2 ? a0 : b0, 2), far1 = __shfl_xor_sync(kAllLanes, q & 2 ? a1 : b1, 2);
      const uint4 tile = q & 2 ? make_uint4(far0, far1, b0, b1) : make_uint4(a0, a1, far0, far1);
      if (half ? is_lower_live : is_upper_live) *reinterpret_cast<uint4*>(to + half * below + (n + q) * 8) = tile;
    }
  }
#pragma unroll
  for (int n = kTiles / 4 * 4; n < kTiles; n++) {
    if (is_upper_live) put_pair(to + n * 8 + 2 * q, acc[n][0], acc[n][1]);
    if (is_lower_live) put_pair(to + below + n * 8 + 2 * q, acc[n][2], acc[n][3]);
  }
}

// The sum over the four lanes that share a row of an accumulator.
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}
