// What evaluations ask of the recurrent states of heads.
#include "common.cuh"

// One block of 256 threads per lane and head.
extern "C" __global__ void state_statistics(int heads, int size, const float* state, i64 stride, float* out) {
  __shared__ float parts[32];
  const i64 unit = blockIdx.x;
  const float* x = state + unit / heads * stride + unit % heads * size;
  double sum = 0, squares = 0, spread = 0;
  float largest = 0.f;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    sum += x[i];
    squares += (double)x[i] * x[i];
    largest = fmaxf(largest, fabsf(x[i]));
  }
  const double mean = block_sum_double(sum) / size;
  __syncthreads();
  squares = block_sum_double(squares);
  __syncthreads();
  for (int i = threadIdx.x; i < size; i += blockDim.x) spread += (x[i] - mean) * (x[i] - mean);
  spread = block_sum_double(spread);
  largest = warp_max(largest);
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = largest;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < 8; i++) largest = fmaxf(largest, parts[i]);
  out[unit * 4] = (float)mean;
  out[unit * 4 + 1] = (float)(spread / (size - 1));
  out[unit * 4 + 2] = (float)sqrt(squares / size);
  out[unit * 4 + 3] = largest;
}
