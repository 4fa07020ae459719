// Attention over selected keys.
//
// One (batch, head) at a time: its keys are packed in tiles of a few MB, and all queries pass over a tile before the
// next one comes. Heads that share their keys share a tile that holds all of them.
#include "attend.h"

namespace {

// One record per key: what a query needs of it lies in one page, and no two of these rows have equal low address bits.
constexpr int64_t FORWARD = 2 * P;  // k, v

// False if a position lies beyond the keys.
bool find_all_bounds(const Attend& a) {
  std::atomic<bool> fits{true};
  const int64_t chunk = 256, chunks = (a.time + chunk - 1) / chunk;
  parallel(int(a.threads), a.batch * a.groups * chunks, [&](int64_t unit, int) {
    const int64_t row = unit / chunks, from = unit % chunks * chunk;
    for (int64_t t = from; t < std::min(from + chunk, a.time); t++) {
      const int32_t* keys = a.positions + (row * a.time + t) * a.slots;
      const int32_t count = a.counts[row * a.time + t];
      find_bounds(a, row, t, keys, count);
      if (count > a.slots || (count > 0 && (keys[0] < 0 || keys[count - 1] >= a.keys))) fits = false;
    }
  });
  return fits;
}

// The first query of a part; all parts hold about as many pairs.
int64_t first_of(const Attend& a, int64_t b, int64_t part) {
  const int32_t* counts = a.counts + b * a.groups * a.time;
  int64_t all = a.time, before = 0, t = 0;  // a query without keys is some work too
  for (int64_t i = 0; i < a.time; i++) all += counts[i];
  for (const int64_t wanted = all * part / a.parts; t < a.time && before < wanted; t++) before += counts[t] + 1;
  return t;
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

// Floats of a query's logits that wait for the last tile: the last vector of a tile's may reach beyond the slots.
int64_t kept_pitch(int64_t slots) { return slots + W; }

}  // namespace

extern "C" int64_t size_of(int64_t structure) { return sizes<Attend, Heads>(structure); }
// `kept`: 1 if a head's logits wait for its last tile, 0 if not.
extern "C" int64_t forward_scratch(int64_t tile, int64_t time, int64_t slots, int64_t kept) {
  return round_up(tile * FORWARD + 2 * time + slots + W + kept * time * kept_pitch(slots), 16);
}

// Softmax over the keys of a query tile by tile: the output so far is rescaled when a larger logit comes.
// The heads are taken in so many chunks. `mass`: null, or [chunk, batch, time, slots rounded up to vectors of 16], for
// the probabilities summed over each chunk's heads. Where there are several tiles, a head's logits wait for the last:
// only then is it known what they sum up to. Returns whether all positions were keys.
extern "C" bool attend_forward(const Attend* args, int64_t chunks, float* mass) {
  const Attend& a = *args;
  if (!find_all_bounds(a)) return false;
  const int64_t tiles = a.tiles();
  const float scale = float(a.scale);
  const int64_t together = a.heads / chunks, pitch = round_up(a.slots, 16);
  parallel(int(a.threads), a.batch * chunks * a.parts, [&](int64_t unit, int thread) {
    const int64_t part = unit % a.parts, chunk = unit / a.parts % chunks, b = unit / a.parts / chunks;
    const int64_t from = first_of(a, b, part), to = first_of(a, b, part + 1);
    float* const records = a.scratch + thread * a.scratch_per_thread;
    float *peak = records + a.tile * FORWARD, *total = peak + a.time, *logits = total + a.time;
    float* const kept = mass && tiles > 1 ? logits + a.slots + W : nullptr;
    for (int64_t h = chunk * together; h < (chunk + 1) * together; h++) {
      const Slots slots(a, a.row(b, h));
      float* logsumexp = a.logsumexp + (b * a.heads + h) * a.time;

      for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t begin = tile * a.tile, end = std::min(begin + a.tile, a.keys);
        if (tiles > 1 || h == chunk * together || h % a.shared() == 0) {
          pack<D>(a.k, b, h / a.shared(), begin, end, records, FORWARD);
          pack<D>(a.v, b, h / a.shared(), begin, end, records + P, FORWARD);
        }
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
          vf highest = splat(-INF);
          for (int64_t i = 0; i < n; i += W) {
            vf logit = dots<D, FORWARD>(q, k, index + i, n - i);
            if (n - i < W) logit = lanes() < int32_t(n - i) ? logit : splat(-INF);
            store(logits + i, logit);
            highest = larger(logit, highest);
          }
          const float before = !first ? peak[t] : a.sink ? a.sink[h] : -INF;
          const float now = n ? std::max(before, largest(highest)) : before;
          const float base = now == -INF ? 0.f : now;
          float* const waiting = kept ? kept + (t - from) * kept_pitch(a.slots) : nullptr;
          for (int64_t i = 0; waiting && i < n; i += W) store(waiting + s0 + i, load(logits + i));
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
            if (mass) {
              float* to_row = mass + ((chunk * a.batch + b) * a.time + t) * pitch;
              const bool begin_sum = h == chunk * together;
              for (int64_t i = 0; waiting && i < s0 + n; i += W)
                store(logits + i, exponential(load(waiting + i) - base));
              for (int64_t i = 0; i < s0 + n; i += W) {
                const vf p = load(logits + i) * share;
                store(to_row + i, begin_sum ? p : load(to_row + i) + p);
              }
            }
          }
          peak[t] = base;
          total[t] = z;
          out.write(a.out.at(b, h, t));
        }
      }
      for (int64_t t = from; t < to; t++) logsumexp[t] = peak[t] + std::log(total[t]);
    }
  });
  return true;
}
