// The optimizer: clipping and AdamW. Formulas: src/devices/reference/dense.ts.
#include "common.cuh"

// Of one optimizer step; in device memory, so that a captured graph need not change with it.
struct AdamW {
  float mean, clip_norm, learning_rate, beta1, beta2, epsilon, weight_decay, correction1, correction2;
  // 1 - beta, rounded once.
  float rest1, rest2;
};

__device__ __forceinline__ void adamw_element(const AdamW& h, float scale, float shrink, float gradient, float& p, float& m, float& v) {
  const float g = gradient * scale;
  m = h.beta1 * m + h.rest1 * g;
  v = h.beta2 * v + h.rest2 * g * g;
  const float update = m * h.correction1 / (sqrtf(v * h.correction2) + h.epsilon);
  p = p - h.learning_rate * update - shrink * p;
}

// Clipping by the norm of the whole gradient, the step, and the parameters rounded for the matrix products, in one pass. The
// elements between decay_edges[2 i] and decay_edges[2 i + 1] decay. No squared_norm: no clipping. Four elements a thread.
extern "C" __global__ void adamw(i64 count, const AdamW* step, const double* squared_norm, int edges, const i64* decay_edges,
                                 const float* gradient, float* parameters, float* first, float* second, bf16* rounded) {
  const AdamW h = *step;
  float scale = h.mean;
  if (squared_norm && h.clip_norm > 0.f) {
    const float norm = (float)(sqrt(*squared_norm) * h.mean);
    if (norm > h.clip_norm) scale *= h.clip_norm / norm;
  }
  const i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (i >= count) return;
  int low = 0, high = edges;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (decay_edges[middle] <= i)
      low = middle + 1;
    else
      high = middle;
  }
  const bool aligned = ((u64)gradient | (u64)parameters | (u64)first | (u64)second) % 16 == 0 && (u64)rounded % 8 == 0;
  if (aligned && i + 4 <= count && (low == edges || decay_edges[low] >= i + 4)) {
    const float shrink = low % 2 ? h.learning_rate * h.weight_decay : 0.f;
    Vec<4> g = load<4>(gradient + i), p = load<4>(parameters + i), m = load<4>(first + i), v = load<4>(second + i);
    for (int j = 0; j < 4; j++) adamw_element(h, scale, shrink, g.v[j], p.v[j], m.v[j], v.v[j]);
    store(parameters + i, p), store(first + i, m), store(second + i, v);
    if (rounded) store(rounded + i, p);
    return;
  }
  for (i64 k = i; k < i + 4 && k < count; k++) {
    while (low < edges && decay_edges[low] <= k) low++;
    float p = parameters[k], m = first[k], v = second[k];
    adamw_element(h, scale, low % 2 ? h.learning_rate * h.weight_decay : 0.f, gradient[k], p, m, v);
    parameters[k] = p, first[k] = m, second[k] = v;
    if (rounded) store_float(rounded + k, p);
  }
}
