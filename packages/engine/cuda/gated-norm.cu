// The gated norm, forward and backward. Formulas: src/devices/reference/mixer.ts.
#include "common.cuh"

// A row is held in registers: each thread has up to kPieces vectors of it.
constexpr int kPieces = 2;

template <int kWidth>
__device__ __forceinline__ void gated_norm_row(int width, int group_width, int norm_first, float eps, const Act* y, const Act* gate,
                                               int stride, const float* weight, Act* out, float* inverse_rms) {
  __shared__ float parts[32];
  const i64 row = blockIdx.x, group = blockIdx.y, base = row * width + group * group_width;
  const Act* z = gate + row * stride + group * group_width;
  const float* w = weight + group * group_width;
  Vec<kWidth> x[kPieces], gating[kPieces];
  float squares = 0.f;
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int i = (threadIdx.x + k * blockDim.x) * kWidth;
    if (i >= group_width) break;
    x[k] = load<kWidth>(y + base + i);
    gating[k] = load<kWidth>(z + i);
    for (int j = 0; j < kWidth; j++) {
      gating[k].v[j] *= sigmoid(gating[k].v[j]);
      if (!norm_first) x[k].v[j] *= gating[k].v[j];
      squares += x[k].v[j] * x[k].v[j];
    }
  }
  const float inverse = 1.f / sqrtf(block_sum(squares, parts) / group_width + eps);
  if (threadIdx.x == 0) inverse_rms[row * gridDim.y + group] = inverse;
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int i = (threadIdx.x + k * blockDim.x) * kWidth;
    if (i >= group_width) break;
    Vec<kWidth> r = load<kWidth>(w + i);
    for (int j = 0; j < kWidth; j++) r.v[j] *= x[k].v[j] * inverse * (norm_first ? gating[k].v[j] : 1.f);
    store(out + base + i, r);
  }
}

// Grid [rows, groups].
extern "C" __global__ void gated_norm(int width, int group_width, int norm_first, int vector, float eps, const Act* y,
                                      const Act* gate, int stride, const float* weight, Act* out, float* inverse_rms) {
  if (vector == 4)
    gated_norm_row<4>(width, group_width, norm_first, eps, y, gate, stride, weight, out, inverse_rms);
  else
    gated_norm_row<1>(width, group_width, norm_first, eps, y, gate, stride, weight, out, inverse_rms);
}

template <int kWidth, bool kNormFirst>
__device__ __forceinline__ void gated_norm_backward_rows(int rows, int width, int group_width, const Act* y, const Act* gate,
                                                         int stride, const float* weight, const float* inverse_rms, const Act* d_out,
                                                         Act* d_y, Act* d_gate, int d_gate_stride, float* partial, Act* out) {
  __shared__ float parts[2][32];
  const i64 group = blockIdx.y;
  Vec<kWidth> d_w[kPieces];
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    for (int j = 0; j < kWidth; j++) d_w[k].v[j] = 0.f;
  }
  // The next row is on its way while one is worked on. d_y may be d_out: a row is asked for before it is written.
  Raw<Act, kWidth> next_y[kPieces], next_z[kPieces], next_g[kPieces];
  auto ask = [&](i64 row) {
    const i64 base = row * width + group * group_width;
#pragma unroll
    for (int k = 0; k < kPieces; k++) {
      const int i = (threadIdx.x + k * blockDim.x) * kWidth;
      if (i >= group_width) break;
      next_y[k] = load_raw<kWidth>(y + base + i);
      next_z[k] = load_raw<kWidth>(gate + row * stride + group * group_width + i);
      next_g[k] = load_raw<kWidth>(d_out + base + i);
    }
  };
  ask(blockIdx.x);
  int turn = 0;
  for (i64 row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1) {
    const i64 base = row * width + group * group_width;
    Vec<kWidth> yv[kPieces], g[kPieces], gating[kPieces], slope[kPieces];
#pragma unroll
    for (int k = 0; k < kPieces; k++) {
      yv[k] = next_y[k].floats(), gating[k] = next_z[k].floats(), g[k] = next_g[k].floats();
    }
    if (row + gridDim.x < rows) ask(row + gridDim.x);
    float dots = 0.f;
#pragma unroll
    for (int k = 0; k < kPieces; k++) {
      const int i = (threadIdx.x + k * blockDim.x) * kWidth;
      if (i >= group_width) break;
      const Vec<kWidth> w = load<kWidth>(weight + group * group_width + i);
      for (int j = 0; j < kWidth; j++) {
        const float zv = gating[k].v[j], s = sigmoid(zv);
        gating[k].v[j] = zv * s;
        slope[k].v[j] = s * (1.f + zv * (1.f - s));
        dots += yv[k].v[j] * gating[k].v[j] * g[k].v[j] * w.v[j];
      }
    }
    const float inverse = inverse_rms[row * gridDim.y + group];
    const float mean = block_sum(dots, parts[turn]) * inverse * inverse * inverse / group_width;
#pragma unroll
    for (int k = 0; k < kPieces; k++) {
      const int i = (threadIdx.x + k * blockDim.x) * kWidth;
      if (i >= group_width) break;
      const Vec<kWidth> w = load<kWidth>(weight + group * group_width + i);
      Vec<kWidth> dy, dz, again;
      for (int j = 0; j < kWidth; j++) {
        // What was normed is y * silu(z) or y; what its gradient meets is 1 or silu(z).
        const float gated = gating[k].v[j], x = kNormFirst ? yv[k].v[j] : yv[k].v[j] * gated, after = kNormFirst ? gated : 1.f;
        const float normed = x * inverse, dx = g[k].v[j] * after * w.v[j] * inverse - x * mean;
        d_w[k].v[j] += g[k].v[j] * normed * after;
        again.v[j] = normed * w.v[j] * after;
        dz.v[j] = (kNormFirst ? g[k].v[j] * normed * w.v[j] : dx * yv[k].v[j]) * slope[k].v[j];
        dy.v[j] = kNormFirst ? dx : dx * gated;
      }
      store(out + base + i, again);
      store(d_gate + row * d_gate_stride + group * group_width + i, dz);
      store(d_y + base + i, dy);
    }
  }
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int i = (threadIdx.x + k * blockDim.x) * kWidth;
    if (i < group_width) store(partial + (i64)blockIdx.x * width + group * group_width + i, d_w[k]);
  }
}

// Grid [row blocks, groups]; shares of the weight's gradient in `partial` [row blocks, width]. d_y may be d_out.
extern "C" __global__ void gated_norm_backward(int rows, int width, int group_width, int norm_first, int vector, const Act* y,
                                               const Act* gate, int stride, const float* weight, const float* inverse_rms,
                                               const Act* d_out, Act* d_y, Act* d_gate, int d_gate_stride, float* partial,
                                               Act* out) {
  if (vector == 4 && !norm_first)
    gated_norm_backward_rows<4, false>(rows, width, group_width, y, gate, stride, weight, inverse_rms, d_out, d_y, d_gate,
                                       d_gate_stride, partial, out);
  else if (vector == 4)
    gated_norm_backward_rows<4, true>(rows, width, group_width, y, gate, stride, weight, inverse_rms, d_out, d_y, d_gate,
                                      d_gate_stride, partial, out);
  else if (!norm_first)
    gated_norm_backward_rows<1, false>(rows, width, group_width, y, gate, stride, weight, inverse_rms, d_out, d_y, d_gate,
                                       d_gate_stride, partial, out);
  else
    gated_norm_backward_rows<1, true>(rows, width, group_width, y, gate, stride, weight, inverse_rms, d_out, d_y, d_gate,
                                      d_gate_stride, partial, out);
}
