// What a row of scores sums up to, however long it is.
#pragma once
#include "vec.h"

// Softmax over a stream of scores: its log-sum-exp and entropy.
struct Softmax {
  float peak = -INF;
  double total = 0, weighted = 0;

  void add(const float* score, int64_t n) {
    vf highest = splat(peak);
    for (int64_t i = 0; i < n; i += W) highest = larger(highest, some(score, i, n));
    const float top = largest(highest);
    if (top != peak) {
      const double shrink = std::exp(double(peak) - top);
      total *= shrink;
      weighted *= shrink;
      peak = top;
    }
    const float base = peak == -INF ? 0.f : peak;
    vf sum_e = {}, sum_ex = {};
    for (int64_t i = 0; i < n; i += W) {
      const vf x = some(score, i, n), e = exponential(x - base);
      sum_e += e;
      sum_ex += e == 0.f ? e : e * x;
    }
    total += sum(sum_e);
    weighted += sum(sum_ex);
  }
  static vf some(const float* score, int64_t i, int64_t n) {
    if (n - i >= W) return load(score + i);
    vf x = splat(-INF);
    for (int64_t j = i; j < n; j++) x[j - i] = score[j];
    return x;
  }
  float logsumexp() const { return float(peak + std::log(total)); }
  float entropy() const { return total > 0 ? float(peak + std::log(total) - weighted / total) : 0.f; }
};
