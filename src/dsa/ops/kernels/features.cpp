// What a lightning indexer makes of its projection, in one pass over it: queries and keys turned by their positions,
// keys normed before that. All sizes are known at run time only, so that one build serves every indexer.
#include <vector>
#include "parallel.h"
#include "vec.h"

struct Features {
  const float* projected;  // [row, width]: queries of every head, the key, the rest; rows are tokens of all texts
  int64_t rows, time, heads, dim, half, rest;  // half: pairs of dimensions that turn
  const float *cosine, *sine;  // [time, half]
  const float *weight, *bias;  // of the norm, [dim]
  float eps;
  float *queries, *keys, *others;                           // [row, head, dim], [row, dim], [row, rest]
  const float *grad_queries, *grad_keys, *grad_others;      // of these, or null where nothing was asked of them
  float *grad, *parts, *grad_weight, *grad_bias;            // of what they are made of; parts: room, [unit, 2, dim]
  int64_t threads;

  int64_t width() const { return (heads + 1) * dim + rest; }
  int64_t padded() const { return round_up(dim, W); }
};

namespace {

constexpr int64_t ROWS = 64;  // of a unit: sums over rows do not depend on the threads

int64_t units(const Features& f) { return (f.rows + ROWS - 1) / ROWS; }

// Up to W floats, 0 behind the first n.
inline vf some(const float* p, int64_t n) {
  if (n >= W) return load(p);
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_loadu_ps((1u << n) - 1, p);
#else
  float lane[W] = {};
  for (int64_t i = 0; i < n; i++) lane[i] = p[i];
  return load(lane);
#endif
}

// The first n lanes, W at most.
inline void keep(float* p, vf x, int64_t n) {
  if (n >= W) return store(p, x);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (1u << n) - 1, (__m512)x);
#else
  for (int64_t i = 0; i < n; i++) p[i] = x[i];
#endif
}

// The first dimensions in pairs, halves apart, by the angle of a position; direction -1 turns them back.
inline void turn(const Features& f, int64_t row, float direction, const float* from, float* to) {
  const float *cosine = f.cosine + row % f.time * f.half, *sine = f.sine + row % f.time * f.half;
  for (int64_t i = 0; i < f.half; i += W) {
    const int64_t n = f.half - i;
    const vf a = some(from + i, n), b = some(from + i + f.half, n);
    const vf c = some(cosine + i, n), s = direction * some(sine + i, n);
    keep(to + i, a * c - b * s, n);
    keep(to + i + f.half, b * c + a * s, n);
  }
  for (int64_t i = 2 * f.half; i < f.dim; i += W) keep(to + i, some(from + i, f.dim - i), f.dim - i);
}

// x with mean 0 and variance 1, and 0 behind its dims; returns the factor that made it so.
inline float standardised(const Features& f, const float* x, float* to) {
  vf all = {}, squares = {};
  for (int64_t i = 0; i < f.dim; i += W) all += some(x + i, f.dim - i);
  const float mean = sum(all) / f.dim;
  for (int64_t i = 0; i < f.dim; i += W) {
    const vf centred = lanes() < int32_t(f.dim - i) ? some(x + i, f.dim - i) - mean : vf{};
    store(to + i, centred);
    squares += centred * centred;
  }
  const float factor = 1.f / std::sqrt(sum(squares) / f.dim + f.eps);
  for (int64_t i = 0; i < f.dim; i += W) store(to + i, load(to + i) * factor);
  return factor;
}

// Gradient of a key before its norm; what the norm's own parameters get is added to `part`.
inline void key_backward(const Features& f, int64_t row, const float* key, float* grad, float* part, float* room) {
  float *unit = room, *own = room + f.padded();
  const float factor = standardised(f, key, unit);
  turn(f, row, -1, f.grad_keys + row * f.dim, own);
  vf all = {}, along = {};
  for (int64_t i = 0; i < f.dim; i += W) {
    const int64_t n = f.dim - i;
    const vf given = some(own + i, n), x = load(unit + i), weighted = given * some(f.weight + i, n);
    keep(part + i, some(part + i, n) + given * x, n);
    keep(part + f.dim + i, some(part + f.dim + i, n) + given, n);
    store(own + i, weighted);
    all += weighted;
    along += weighted * x;
  }
  const float mean = sum(all) / f.dim, share = sum(along) / f.dim;
  for (int64_t i = 0; i < f.dim; i += W)
    keep(grad + i, factor * (load(own + i) - mean - share * load(unit + i)), f.dim - i);
}

}  // namespace

extern "C" int64_t size_of(int64_t structure) { return sizes<Features>(structure); }
extern "C" int64_t features_parts(const Features* args) { return units(*args) * 2 * args->dim; }

extern "C" void features_forward(const Features* args) {
  const Features& f = *args;
  parallel(int(f.threads), units(f), [&](int64_t unit, int) {
    std::vector<float> normed(f.padded());
    for (int64_t row = unit * ROWS; row < std::min((unit + 1) * ROWS, f.rows); row++) {
      const float* from = f.projected + row * f.width();
      for (int64_t h = 0; h < f.heads; h++, from += f.dim) turn(f, row, 1, from, f.queries + (row * f.heads + h) * f.dim);
      standardised(f, from, normed.data());
      for (int64_t i = 0; i < f.dim; i++) normed[i] = normed[i] * f.weight[i] + f.bias[i];
      turn(f, row, 1, normed.data(), f.keys + row * f.dim);
      std::copy(from + f.dim, from + f.dim + f.rest, f.others + row * f.rest);
    }
  });
}

extern "C" void features_backward(const Features* args) {
  const Features& f = *args;
  parallel(int(f.threads), units(f), [&](int64_t unit, int) {
    std::vector<float> room(2 * f.padded());
    float* part = f.parts + unit * 2 * f.dim;
    std::fill(part, part + 2 * f.dim, 0.f);
    for (int64_t row = unit * ROWS; row < std::min((unit + 1) * ROWS, f.rows); row++) {
      const float* key = f.projected + row * f.width() + f.heads * f.dim;
      float* to = f.grad + row * f.width();
      for (int64_t h = 0; h < f.heads; h++, to += f.dim) {
        if (f.grad_queries) turn(f, row, -1, f.grad_queries + (row * f.heads + h) * f.dim, to);
        else std::fill(to, to + f.dim, 0.f);
      }
      if (f.grad_keys) key_backward(f, row, key, to, part, room.data());
      else std::fill(to, to + f.dim, 0.f);
      to += f.dim;
      if (f.grad_others) std::copy(f.grad_others + row * f.rest, f.grad_others + (row + 1) * f.rest, to);
      else std::fill(to, to + f.rest, 0.f);
    }
  });
  for (int64_t i = 0; i < f.dim; i++) {
    f.grad_weight[i] = f.grad_bias[i] = 0;
    for (int64_t unit = 0; unit < units(f); unit++) {
      f.grad_weight[i] += f.parts[(unit * 2) * f.dim + i];
      f.grad_bias[i] += f.parts[(unit * 2 + 1) * f.dim + i];
    }
  }
}
