// Sums and copies of long vectors.
#include "common.cuh"

extern "C" __global__ void add_vectors(i64 count, const float* from, float* to) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) to[i] += from[i];
}

extern "C" __global__ void round_to_bf16(i64 count, const float* from, bf16* to) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) store_float(to + i, from[i]);
}

// x is rounded where it lies; `bits`, if there is one, gets what travels of it.
extern "C" __global__ void round_in_place(i64 count, float* x, bf16* bits) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  bf16 rounded;
  store_float(&rounded, x[i]);
  x[i] = to_float(rounded);
  if (bits) bits[i] = rounded;
}

extern "C" __global__ void widen_bf16(i64 count, const bf16* from, float* to) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) to[i] = to_float(from[i]);
}

// partial[block] = the sum of squares of a block of block_floats; 256 threads. Blocks of a slice that begins with one are the whole's.
extern "C" __global__ void squares_of_blocks(i64 count, int block_floats, const float* x, double* partial) {
  const i64 begin = (i64)blockIdx.x * block_floats;
  const i64 end = begin + block_floats < count ? begin + block_floats : count;
  double sum = 0;
  for (i64 i = begin + threadIdx.x; i < end; i += blockDim.x) sum += (double)x[i] * x[i];
  sum = block_sum_double(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block of 256 threads: out = sum of partial.
extern "C" __global__ void sum_of_partials(int count, const double* partial, double* out) {
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sum = block_sum_double(sum);
  if (threadIdx.x == 0) *out = sum;
}

// One block of 256 threads: out = sum of x * weights (1 where there are none).
extern "C" __global__ void weighted_sum(int count, const float* x, const float* weights, double* out) {
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += (double)x[i] * weights[i];
  sum = block_sum_double(sum);
  if (threadIdx.x == 0) *out = sum;
}
