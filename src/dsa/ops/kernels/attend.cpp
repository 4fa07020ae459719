// Attention over selected keys, forward and backward. Compiled for one head dimension.
//
// One (batch, head) at a time: its keys are packed in tiles that stay in the second-level cache together with what is
// gathered from or added to them, and all queries pass over a tile before the next one comes.
#include "parallel.h"
#include "rows.h"

struct Attend {
  Heads q, k, v, out;
  float* logsumexp;          // [batch, head, time]
  const float* sink;         // [head], or null
  const int32_t *positions;  // [batch, group, time, slot]
  const int32_t *counts;     // [batch, group, time]
  int32_t* bounds;           // [batch, group, tiles + 1, time]: first slot of each tile
  int64_t batch, heads, groups, time, keys, slots;
  int64_t tile;              // keys per tile
  int64_t parts;             // the queries (forward) or tiles (backward) of a head are split into so many units
  int64_t threads;
  float* scratch;
  int64_t scratch_per_thread;
  Heads grad_out, grad_q, grad_k, grad_v;  // grad_q.data: `parts` tensors, part_stride apart
  int64_t part_stride;
  float* grad_sink;          // [batch, head, parts]
  float* logits;             // null, or [batch, head, time, slot]: kept for the indexer loss
};

namespace {

constexpr int D = HEAD_DIM;
using R = Row<D>;
constexpr int64_t P = PADDED<D>;
// One record per key: what a query needs of it lies in one page, and no two of these rows have equal low address bits.
constexpr int64_t FORWARD = 2 * P;   // k, v
constexpr int64_t BACKWARD = 4 * P;  // k, v, dk, dv
constexpr int64_t BATCH = W;         // keys whose probabilities are computed before they are used: more leave the cache

struct Slots {
  const int32_t *positions, *bounds;
  int64_t slots, time;
  Slots(const Attend& a, int64_t b, int64_t h) : slots(a.slots), time(a.time) {
    const int64_t row = b * a.groups + h / (a.heads / a.groups), tiles = (a.keys + a.tile - 1) / a.tile;
    positions = a.positions + row * time * slots;
    bounds = a.bounds + row * (tiles + 1) * time;
  }
  int64_t begin(int64_t tile, int64_t t) const { return bounds[tile * time + t]; }
  int64_t end(int64_t tile, int64_t t) const { return bounds[(tile + 1) * time + t]; }
  const int32_t* at(int64_t t, int64_t slot) const { return positions + t * slots + slot; }
};

// False if a position lies beyond the keys.
bool find_bounds(const Attend& a) {
  std::atomic<bool> fits{true};
  const int64_t tiles = (a.keys + a.tile - 1) / a.tile, chunk = 256, chunks = (a.time + chunk - 1) / chunk;
  parallel(a.threads, a.batch * a.groups * chunks, [&](int64_t unit, int) {
    const int64_t row = unit / chunks, from = unit % chunks * chunk, to = std::min(from + chunk, a.time);
    int32_t* bounds = a.bounds + row * (tiles + 1) * a.time;
    for (int64_t t = from; t < to; t++) {
      const int32_t* keys = a.positions + (row * a.time + t) * a.slots;
      const int32_t count = a.counts[row * a.time + t];
      int32_t slot = 0;
      bounds[t] = 0;
      for (int64_t tile = 1; tile < tiles; tile++) {
        slot = int32_t(std::lower_bound(keys + slot, keys + count, int32_t(tile * a.tile)) - keys);
        bounds[tile * a.time + t] = slot;
      }
      bounds[tiles * a.time + t] = count;
      if (count > a.slots || (count > 0 && (keys[0] < 0 || keys[count - 1] >= a.keys))) fits = false;
    }
  });
  return fits;
}

// sum of weight[i] * rows[index[i]]: four at a time, to hide the latency of adding.
inline void add_rows(R& to, const float* rows, const int32_t* index, const float* weight, int64_t n) {
  R part[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
      for (int x = 0; x < R::N; x++) part[j].x[x] += weight[i + j] * load(rows + index[i + j] * FORWARD + x * W);
  for (; i < n; i++)
    for (int x = 0; x < R::N; x++) part[0].x[x] += weight[i] * load(rows + index[i] * FORWARD + x * W);
  for (int x = 0; x < R::N; x++) to.x[x] += (part[0].x[x] + part[1].x[x]) + (part[2].x[x] + part[3].x[x]);
}

}  // namespace

extern "C" int64_t forward_scratch(int64_t tile, int64_t time, int64_t slots) {
  return round_up(tile * FORWARD + 2 * time + slots + W, 16);
}

extern "C" int64_t backward_scratch(int64_t tile, int64_t time, int64_t) { return round_up(tile * BACKWARD + time, 16); }

// Softmax over the keys of a query tile by tile: the output so far is rescaled when a larger logit comes.
// Returns whether all positions were keys.
extern "C" bool attend_forward(const Attend* args) {
  const Attend& a = *args;
  if (!find_bounds(a)) return false;
  const int64_t tiles = (a.keys + a.tile - 1) / a.tile;
  const float scale = 1.f / std::sqrt(float(HEAD_DIM));
  parallel(a.threads, a.batch * a.heads * a.parts, [&](int64_t unit, int thread) {
    const int64_t part = unit % a.parts, h = unit / a.parts % a.heads, b = unit / a.parts / a.heads;
    const int64_t from = part * a.time / a.parts, to = (part + 1) * a.time / a.parts;
    const Slots slots(a, b, h);
    float* logsumexp = a.logsumexp + (b * a.heads + h) * a.time;
    float* const records = a.scratch + thread * a.scratch_per_thread;
    float *peak = records + a.tile * FORWARD, *total = peak + a.time, *logits = total + a.time;

    for (int64_t tile = 0; tile < tiles; tile++) {
      const int64_t begin = tile * a.tile, end = std::min(begin + a.tile, a.keys);
      pack<D>(a.k, b, h, begin, end, records, FORWARD);
      pack<D>(a.v, b, h, begin, end, records + P, FORWARD);
      const float *k = records - begin * FORWARD, *v = k + P;
      for (int64_t t = from; t < to; t++) {
        const int64_t s0 = slots.begin(tile, t), n = slots.end(tile, t) - s0;
        const bool first = tile == 0, last = tile == tiles - 1;
        if (n == 0 && !first && !last) continue;
        const int64_t ahead = std::min(t + 4, to - 1);
        fetch(a.q.at(b, h, ahead), D);
        fetch(a.out.at(b, h, ahead), D);
        const int32_t* index = slots.at(t, s0);
        R q = R::read(a.q.at(b, h, t));
        for (vf& x : q.x) x *= scale;
        float* kept = a.logits ? a.logits + ((b * a.heads + h) * a.time + t) * a.slots + s0 : nullptr;
        vf highest = splat(-INF);
        for (int64_t i = 0; i < n; i += W) {
          vf logit = dots<D, FORWARD>(q, k, index + i, n - i);
          if (n - i < W) logit = lanes() < int32_t(n - i) ? logit : splat(-INF);
          store(logits + i, logit);
          if (kept) memcpy(kept + i, logits + i, std::min<int64_t>(n - i, W) * sizeof(float));
          highest = larger(logit, highest);
        }
        const float before = !first ? peak[t] : a.sink ? a.sink[h] : -INF;
        const float now = n ? std::max(before, largest(highest)) : before;
        const float base = now == -INF ? 0.f : now;
        vf exponentials = {};
        for (int64_t i = 0; i < n; i += W) {
          const vf e = exponential(load(logits + i) - base);
          store(logits + i, e);
          exponentials += e;
        }
        const float shrink = first ? 1.f : exponential(splat(before - base))[0];
        const float z = (!first ? total[t] * shrink : a.sink ? std::exp(a.sink[h] - base) : 0.f) + sum(exponentials);
        R out = {};
        if (!first) {
          out = R::read(a.out.at(b, h, t));
          for (vf& x : out.x) x *= shrink;
        }
        add_rows(out, v, index, logits, n);
        if (last) {
          const float share = z > 0 ? 1.f / z : z == z ? 0.f : z;
          for (vf& x : out.x) x *= share;
        }
        peak[t] = base;
        total[t] = z;
        out.write(a.out.at(b, h, t));
      }
    }
    for (int64_t t = from; t < to; t++) logsumexp[t] = peak[t] + std::log(total[t]);
  });
  return true;
}

// dv = P^T do, ds = P (do v^T - delta), dq = ds k, dk = ds^T q, with P made anew from the log-sum-exp.
// Only this unit adds to the gradients of its keys, in the order of the queries: the same bits on every run.
// (Gathering from the transposed selection instead, without scattering, was measured 1.3 to 2 times slower.)
extern "C" bool attend_backward(const Attend* args) {
  const Attend& a = *args;
  if (!find_bounds(a)) return false;
  const int64_t tiles = (a.keys + a.tile - 1) / a.tile;
  const float scale = 1.f / std::sqrt(float(HEAD_DIM));
  parallel(a.threads, a.batch * a.heads * a.parts, [&](int64_t unit, int thread) {
    const int64_t part = unit % a.parts, h = unit / a.parts % a.heads, b = unit / a.parts / a.heads;
    const Slots slots(a, b, h);
    const float* logsumexp = a.logsumexp + (b * a.heads + h) * a.time;
    float* const records = a.scratch + thread * a.scratch_per_thread;
    float* const delta = records + a.tile * BACKWARD;
    const int64_t first_tile = part * tiles / a.parts, last_tile = (part + 1) * tiles / a.parts;
    Heads grad_q = a.grad_q;
    grad_q.data += part * a.part_stride;

    double grad_sink = 0;
    for (int64_t t = 0; t < a.time; t++) {
      const R out = R::read(a.out.at(b, h, t)), grad = R::read(a.grad_out.at(b, h, t));
      vf product = {};
      for (int x = 0; x < R::N; x++) product += out.x[x] * grad.x[x];
      delta[t] = sum(product);
      if (a.sink && part == 0) grad_sink -= std::exp(a.sink[h] - logsumexp[t]) * delta[t];
      if (slots.begin(first_tile, t) == slots.end(last_tile - 1, t)) R{}.write(grad_q.at(b, h, t));
    }
    a.grad_sink[unit] = float(grad_sink);

    for (int64_t tile = first_tile; tile < last_tile; tile++) {
      const int64_t begin = tile * a.tile, end = std::min(begin + a.tile, a.keys);
      pack<D>(a.k, b, h, begin, end, records, BACKWARD);
      pack<D>(a.v, b, h, begin, end, records + P, BACKWARD);
      for (int64_t i = 0; i < end - begin; i++) memset(records + i * BACKWARD + 2 * P, 0, 2 * P * sizeof(float));
      const float *k = records - begin * BACKWARD, *v = k + P;
      for (int64_t t = 0; t < a.time; t++) {
        const int64_t s0 = slots.begin(tile, t), n = slots.end(tile, t) - s0;
        if (n == 0) continue;
        const int64_t ahead = std::min(t + 4, a.time - 1);
        fetch(a.q.at(b, h, ahead), D);
        fetch(a.grad_out.at(b, h, ahead), D);
        fetch(grad_q.at(b, h, ahead), D);
        const int32_t* index = slots.at(t, s0);
        R q = R::read(a.q.at(b, h, t));
        for (vf& x : q.x) x *= scale;
        const R grad = R::read(a.grad_out.at(b, h, t));
        R dq = {};
        for (int64_t i = 0; i < n; i += BATCH) {
          const int64_t m = std::min(n - i, BATCH);
          const int32_t* some = index + i;
          float p[BATCH], ds[BATCH];
          for (int64_t j = 0; j < m; j += W) {
            const vf probability = exponential(dots<D, BACKWARD>(q, k, some + j, m - j) - logsumexp[t]);
            store(p + j, probability);
            store(ds + j, probability * (dots<D, BACKWARD>(grad, v, some + j, m - j) - delta[t]));
          }
          for (int64_t j = 0; j < m; j++) {
            float* const record = records - begin * BACKWARD + some[j] * BACKWARD;
            for (int x = 0; x < R::N; x++) {
              float *dk = record + 2 * P + x * W, *dv = record + 3 * P + x * W;
              dq.x[x] += ds[j] * load(record + x * W);
              store(dk, load(dk) + ds[j] * q.x[x]);
              store(dv, load(dv) + p[j] * grad.x[x]);
            }
          }
        }
        for (vf& x : dq.x) x *= scale;
        if (s0 > slots.begin(first_tile, t)) {
          const R sofar = R::read(grad_q.at(b, h, t));
          for (int x = 0; x < R::N; x++) dq.x[x] += sofar.x[x];
        }
        dq.write(grad_q.at(b, h, t));
      }
      for (int64_t s = begin; s < end; s++) {
        const float* record = records + (s - begin) * BACKWARD;
        R row;
        for (int x = 0; x < R::N; x++) row.x[x] = load(record + 2 * P + x * W);
        row.write(a.grad_k.at(b, h, s));
        for (int x = 0; x < R::N; x++) row.x[x] = load(record + 3 * P + x * W);
        row.write(a.grad_v.at(b, h, s));
      }
    }
  });
  return true;
}
