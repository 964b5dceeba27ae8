// What evaluations ask of the recurrent states of heads, and do to them.
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

// state = factor * from for each head of each lane, or +=. Grid [parts of a head, heads, lanes]; `from` may be `state`.
extern "C" __global__ void mix_heads(int size, const float* factors, const float* from, i64 from_stride, float* state,
                                     i64 state_stride, int accumulate) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, head = blockIdx.y, lane = blockIdx.z;
  if (i >= size) return;
  const i64 at = (i64)head * size + i;
  const float mixed = factors[lane * gridDim.y + head] * from[lane * from_stride + at];
  float* to = state + lane * state_stride + at;
  *to = accumulate ? *to + mixed : mixed;
}

// One block of 256 threads: the sum over a lane's tokens and a group's columns. Grid [groups, lanes].
template <class T>
__device__ __forceinline__ void lane_sum(int tokens, int width, int squared, const T* columns, int stride, float* out,
                                         i64 out_stride) {
  const int group = blockIdx.x, lane = blockIdx.y;
  const T* from = columns + (i64)lane * tokens * stride + group * width;
  double sum = 0;
  for (int i = threadIdx.x; i < tokens * width; i += blockDim.x) {
    const int token = i / width;
    const float x = to_float(from[(i64)token * stride + i - token * width]);
    sum += squared ? (double)x * x : x;
  }
  sum = block_sum_double(sum);
  if (threadIdx.x == 0) out[lane * out_stride + group] = (float)sum;
}

extern "C" __global__ void lane_sums_float(int tokens, int width, int squared, const float* columns, int stride, float* out,
                                           i64 out_stride) {
  lane_sum(tokens, width, squared, columns, stride, out, out_stride);
}

extern "C" __global__ void lane_sums_act(int tokens, int width, int squared, const Act* columns, int stride, float* out,
                                         i64 out_stride) {
  lane_sum(tokens, width, squared, columns, stride, out, out_stride);
}
