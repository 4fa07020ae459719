// Attention of a few queries over their selected keys, which are read where they lie: a tile of packed keys would cost
// more than it spares.
#include "attend.h"

namespace {

// Dot products of `q` with the rows index[0 .. W), `pitch` floats apart; past `n` the last one again.
inline vf dots_in_place(const R& q, const float* rows, int64_t pitch, const int32_t* index, int64_t n) {
  vf product[W];
#pragma GCC unroll 16
  for (int i = 0; i < W; i++) {
    const R row = R::read(rows + index[std::min<int64_t>(i, n - 1)] * pitch);
    product[i] = q.x[0] * row.x[0];
    for (int j = 1; j < R::N; j++) product[i] += q.x[j] * row.x[j];
  }
  return sums(product);
}

// sum of weight[i] * rows[index[i]]: four at a time, to hide the latency of adding.
inline R weighted_rows(const float* rows, int64_t pitch, const int32_t* index, const float* weight, int64_t n) {
  R part[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      const R row = R::read(rows + index[i + j] * pitch);
      for (int x = 0; x < R::N; x++) part[j].x[x] += weight[i + j] * row.x[x];
    }
  for (; i < n; i++) {
    const R row = R::read(rows + index[i] * pitch);
    for (int x = 0; x < R::N; x++) part[0].x[x] += weight[i] * row.x[x];
  }
  for (int x = 0; x < R::N; x++) part[0].x[x] = (part[0].x[x] + part[1].x[x]) + (part[2].x[x] + part[3].x[x]);
  return part[0];
}

// One query of one head. `logits`: room for its keys.
void attend_one(const Attend& a, int64_t b, int64_t h, int64_t t, const int32_t* index, int64_t n, float* logits) {
  const float *k = a.k.at(b, h / a.shared(), 0), *v = a.v.at(b, h / a.shared(), 0);
  R q = R::read(a.q.at(b, h, t));
  for (vf& x : q.x) x *= float(a.scale);
  vf highest = splat(-INF);
  for (int64_t i = 0; i < n; i += W) {
    for (int64_t j = i; j < std::min<int64_t>(i + W, n); j++) {  // of what is far apart the processor foresees nothing
      fetch(v + index[j] * a.v.time, D);
      fetch(k + index[std::min(j + 2 * W, n - 1)] * a.k.time, D);
    }
    vf logit = dots_in_place(q, k, a.k.time, index + i, n - i);
    if (n - i < W) logit = lanes() < int32_t(n - i) ? logit : splat(-INF);
    store(logits + i, logit);
    highest = larger(logit, highest);
  }
  const float sink = a.sink ? a.sink[h] : -INF, peak = std::max(sink, largest(highest));
  const float base = peak == -INF ? 0.f : peak;
  vf exponentials = {};
  for (int64_t i = 0; i < n; i += W) {
    const vf e = exponential(load(logits + i) - base);
    store(logits + i, e);
    exponentials += e;
  }
  const float total = (a.sink ? std::exp(sink - base) : 0.f) + sum(exponentials);
  R out = weighted_rows(v, a.v.time, index, logits, n);
  const float share = total > 0 ? 1.f / total : total == total ? 0.f : total;
  for (vf& x : out.x) x *= share;
  out.write(a.out.at(b, h, t));
  a.logsumexp[(b * a.heads + h) * a.time + t] = base + std::log(total);
}

}  // namespace

extern "C" int64_t size_of(int64_t structure) { return sizes<Attend, Heads>(structure); }
extern "C" int64_t few_scratch(int64_t slots) { return round_up(slots + W, 16); }

// Tiles, parts and bounds are not looked at. Returns whether all positions were keys.
extern "C" bool attend_few(const Attend* args) {
  const Attend& a = *args;
  std::atomic<bool> fits{true};
  parallel(int(a.threads), a.batch * a.heads * a.time, [&](int64_t unit, int thread) {
    const int64_t t = unit % a.time, h = unit / a.time % a.heads, b = unit / a.time / a.heads;
    const int64_t at = a.row(b, h) * a.time + t, n = a.counts[at];
    const int32_t* index = a.positions + at * a.slots;
    if (n > a.slots || (n > 0 && (index[0] < 0 || index[n - 1] >= a.keys))) fits = false;
    else attend_one(a, b, h, t, index, n, a.scratch + thread * a.scratch_per_thread);
  });
  return fits;
}
