// What all kernels share. Activations are bf16 with SEGUE_BF16, else float; everything that is summed is float.
// Nothing is included: NVRTC compiles these sources where no toolkit headers exist.
#pragma once

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;

struct bf16 {
  u16 bits;
};

#ifdef SEGUE_BF16
typedef bf16 Act;
#else
typedef float Act;
#endif

#include "ptx.cuh"

constexpr u32 kAllLanes = 0xffffffffu;
constexpr float kLowest = -3.402823466e38f;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ void store_float(float* to, float x) { *to = x; }
__device__ __forceinline__ void store_float(bf16* to, float x) { to->bits = (u16)pack_bf16(x, 0.f); }

// kWidth neighbouring elements; for four of them the address is a multiple of four elements.
template <int kWidth>
struct Vec {
  float v[kWidth];
};

template <int kWidth>
__device__ __forceinline__ Vec<kWidth> load(const float* from) {
  Vec<kWidth> r;
  if constexpr (kWidth == 4) {
    float4 q = *reinterpret_cast<const float4*>(from);
    r.v[0] = q.x, r.v[1] = q.y, r.v[2] = q.z, r.v[3] = q.w;
  } else {
    r.v[0] = *from;
  }
  return r;
}

template <int kWidth>
__device__ __forceinline__ Vec<kWidth> load(const bf16* from) {
  Vec<kWidth> r;
  if constexpr (kWidth == 4) {
    uint2 q = *reinterpret_cast<const uint2*>(from);
    r.v[0] = __uint_as_float(q.x << 16), r.v[1] = __uint_as_float(q.x & 0xffff0000u);
    r.v[2] = __uint_as_float(q.y << 16), r.v[3] = __uint_as_float(q.y & 0xffff0000u);
  } else {
    r.v[0] = to_float(*from);
  }
  return r;
}

template <int kWidth>
__device__ __forceinline__ void store(float* to, const Vec<kWidth>& x) {
  if constexpr (kWidth == 4)
    *reinterpret_cast<float4*>(to) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
  else
    *to = x.v[0];
}

template <int kWidth>
__device__ __forceinline__ void store(bf16* to, const Vec<kWidth>& x) {
  if constexpr (kWidth == 4)
    *reinterpret_cast<uint2*>(to) = make_uint2(pack_bf16(x.v[0], x.v[1]), pack_bf16(x.v[2], x.v[3]));
  else
    store_float(to, x.v[0]);
}

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.f, 1.f + __expf(-x)); }

// The sum over a warp, the same bits in every lane.
__device__ __forceinline__ float warp_sum(float x) {
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
  for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// The sum over a block, the same bits in every thread; `parts` holds 32 floats and may be used again after a barrier.
__device__ __forceinline__ float block_sum(float x, float* parts) {
  const int warps = (blockDim.x + 31) >> 5;
  x = warp_sum(x);
  if (warps == 1) return x;
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = x;
  __syncthreads();
  x = 0.f;
  for (int i = 0; i < warps; i++) x += parts[i];
  return x;
}
