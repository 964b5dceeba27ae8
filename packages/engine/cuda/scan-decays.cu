// Running sums of log decays in every chunk, and where documents start in it: what the other kernels of the chunk scan begin with. All
// that they know of dt is these sums and what inserts a token, so that the cures of inference end here.
#include "chunks.cuh"

constexpr float kLog2E = 1.44269504088896341f;

// One warp per head. Grid [chunks, lanes].
extern "C" __global__ void scan_decays(int tokens, int heads, int chunks, const int* resets, const float* dt, const float* a_log,
                                       float log_retention, float insertion, float* decays, int* starts) {
  const int lane = threadIdx.x & 31;
  const i64 unit = (i64)blockIdx.y * chunks + blockIdx.x, row = (i64)blockIdx.y * tokens + blockIdx.x * kChunk;
  const int live = min(kChunk, tokens - (int)blockIdx.x * kChunk);
  for (int head = threadIdx.x >> 5; head < heads; head += blockDim.x >> 5) {
    const float a = -expf(a_log[head]) * kLog2E, shift = log_retention * kLog2E;
    float before = 0.f;
    for (int t = lane; t < kChunk; t += 32) {
      const float step = t < live ? dt[(row + t) * heads + head] : 0.f;
      float sum = step * a + (t < live ? shift : 0.f);
      for (int back = 1; back < 32; back <<= 1) {
        const float other = __shfl_up_sync(kAllLanes, sum, back);
        if (lane >= back) sum += other;
      }
      sum += before;
      before = __shfl_sync(kAllLanes, sum, 31);
      float* to = decays + (unit * heads + head) * 2 * kChunk;
      to[t] = sum;
      to[kChunk + t] = step * insertion;
    }
  }
  if (threadIdx.x >= 32) return;
  int before = -1;
  for (int t = lane; t < kChunk; t += 32) {
    const u32 marks = __ballot_sync(kAllLanes, resets && t < live && resets[row + t]);
    const u32 upto = marks & (0xffffffffu >> (31 - lane));
    const int start = upto ? (t & 32) + 31 - __clz((int)upto) : before;
    starts[unit * kChunk + t] = start;
    before = __shfl_sync(kAllLanes, start, 31);
  }
}
