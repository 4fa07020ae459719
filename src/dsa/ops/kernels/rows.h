// Rows of floats wherever they lie, packed copies of them, and dot products with rows chosen by index.
#pragma once
#include "vec.h"

// A tensor [batch, head, time, dim] whose last dimension is dense; strides in floats.
struct Heads {
  float* data;
  int64_t batch, head, time;
  float* at(int64_t b, int64_t h, int64_t t) const { return data + b * batch + h * head + t * time; }
};

// Floats of a packed row, padded to whole vectors.
template <int D>
constexpr int64_t PADDED = round_up(D, W);

// Rows [begin, end), `pitch` floats apart. As they come, rows of one head lie far apart and share few cache sets.
template <int D>
void pack(const Heads& from, int64_t b, int64_t h, int64_t begin, int64_t end, float* to, int64_t pitch = PADDED<D>) {
  for (int64_t t = begin; t < end; t++, to += pitch) {
    fetch(from.at(b, h, std::min(t + 16, end - 1)), D);
    const Row<D> row = Row<D>::read(from.at(b, h, t));
    for (int i = 0; i < row.N; i++) store(to + i * W, row.x[i]);
  }
}

// Dot products of `x` with the packed rows index[0 .. W) of `rows`; past `n` the last one again.
template <int D, int64_t PITCH = PADDED<D>>
inline vf dots(const Row<D>& x, const float* rows, const int32_t* index, int64_t n) {
  int32_t last[W];
  if (n < W) {
    for (int i = 0; i < W; i++) last[i] = index[std::min<int64_t>(i, n - 1)];
    index = last;
  }
  vf product[W];
#pragma GCC unroll 16
  for (int i = 0; i < W; i++) {
    const float* row = rows + index[i] * PITCH;
    product[i] = x.x[0] * load(row);
    for (int j = 1; j < x.N; j++) product[i] += x.x[j] * load(row + j * W);
  }
  return sums(product);
}
