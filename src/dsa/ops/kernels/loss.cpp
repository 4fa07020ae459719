// The indexer loss over selected keys, with its gradients by the index features. Compiled for the attention's head
// dimension, for HEADS x DIM index features and for RELU.
//
// KL(p || softmax(I)) of a row, p = attention summed over heads. By linearity its gradients come with its value.
#include "parallel.h"
#include "rows.h"

struct Loss {
  Heads q, k;               // attention's, [batch, head or kv_head, time, dim]; read if there is room for k packed
  float* packed_k;          // room for [batch, kv_head, key, PADDED], or null: mass or p is given
  double scale;             // of its logits
  const float* logsumexp;   // [batch, head, time]
  const float* mass;        // null, or what `attend_forward` left: [target group, batch, time, slots in vectors of 16]
  const float* p;           // null, or the target [batch, target group, time, key]
  int64_t p_batch, p_group, p_time, p_key;  // its strides
  const float *queries;     // [batch, group, time, HEADS, DIM]
  Heads index_k;            // [batch, keygroup, key, DIM]
  float* packed_index_k;    // room for [batch, keygroup, key, PADDED]
  const float *weights;     // [batch, group, time, HEADS], or null
  const int32_t *positions, *counts;  // [batch, selection group, time, slots] and without slots
  int64_t batch, heads, kv_heads, groups, key_groups, target_groups, selection_groups, time, length, slots;
  float* row_loss;          // room for [batch, group, time]
  int32_t* valid;           // room for [batch, group, time]: rows with probability
  float* loss;              // the mean over valid rows
  int64_t wanted;           // whether gradients are
  float *grad_queries, *grad_keys, *grad_weights;  // of the mean, dense, shaped as the features
  float* part_keys;         // room for grad_keys of every part, padded: [parts, batch, keygroup, key, PADDED]
  int64_t parts;            // the queries of a row of the batch are split into so many units
  int64_t rows;             // queries taken together
  int64_t threads;
  float* scratch;
  int64_t scratch_per_thread;
};

namespace {

using Head = Row<HEAD_DIM>;
using Index = Row<DIM>;
constexpr int64_t P = PADDED<HEAD_DIM>, IP = PADDED<DIM>;

// Adds to sums[t][slot] the probabilities of the queries [from, to) for one head's packed keys.
void add_probabilities(const Loss& a, const float* keys, int64_t b, int64_t h, int64_t selection, int64_t from,
                       int64_t to, bool first, float* sums) {
  const float scale = float(a.scale);
  for (int64_t t = from; t < to; t++) {
    fetch(a.q.at(b, h, std::min(t + 4, to - 1)), HEAD_DIM);
    const int64_t n = a.counts[selection * a.time + t];
    const int32_t* index = a.positions + (selection * a.time + t) * a.slots;
    const float logsumexp = a.logsumexp[(b * a.heads + h) * a.time + t];
    Head q = Head::read(a.q.at(b, h, t));
    for (vf& x : q.x) x *= scale;
    float* to_row = sums + (t - from) * round_up(a.slots, W);
    for (int64_t i = 0; i < n; i += W) {
      const vf p = exponential(dots<HEAD_DIM>(q, keys, index + i, n - i) - logsumexp);
      store(to_row + i, first ? p : load(to_row + i) + p);
    }
  }
}

// One row: its loss, and the gradients of its features. `score` and `numerator` have room for the slots, `dot` for
// HEADS x slots.
void row_loss(const Loss& a, int64_t row, const float* index_keys, float* part_keys, const int32_t* index, int64_t n,
              float* p, float* score, float* numerator, float* dot) {
  const int64_t pitch = round_up(a.slots, W);
  a.row_loss[row] = 0;
  a.valid[row] = 0;
  if (a.wanted) {
    std::fill_n(a.grad_queries + row * HEADS * DIM, HEADS * DIM, 0.f);
    if (a.grad_weights) std::fill_n(a.grad_weights + row * HEADS, HEADS, 0.f);
  }
  vf masses = {};
  for (int64_t i = 0; i < n; i += W) {
    if (n - i < W) store(p + i, lanes() < int32_t(n - i) ? load(p + i) : vf{});
    masses += load(p + i);
  }
  const float mass = sum(masses);
  if (!(mass > 0) && mass == mass) return;
  a.valid[row] = 1;

  Index q[HEADS];
  float weight[HEADS];
  for (int h = 0; h < HEADS; h++) {
    q[h] = Index::read(a.queries + (row * HEADS + h) * DIM);
    weight[h] = a.weights ? a.weights[row * HEADS + h] : 1.f;
  }
  vf highest = splat(-INF);
  for (int64_t i = 0; i < n; i += W) {
    vf total = {};
    for (int h = 0; h < HEADS; h++) {
      vf d = dots<DIM>(q[h], index_keys, index + i, n - i);
      if (RELU) d = d < 0.f ? vf{} : d;
      store(dot + h * pitch + i, d);
      total += d * weight[h];
    }
    if (n - i < W) total = lanes() < int32_t(n - i) ? total : splat(-INF);
    store(score + i, total);
    highest = larger(total, highest);
  }
  const float base = largest(highest);
  vf exponentials = {};
  for (int64_t i = 0; i < n; i += W) {
    const vf relative = load(score + i) - base, e = exponential(relative);
    store(score + i, relative);
    store(numerator + i, e);
    exponentials += e;
  }
  const float z = sum(exponentials), share = 1.f / z, log_z = std::log(z), per_mass = 1.f / mass;
  vf losses = {}, by_weight[HEADS] = {};
  for (int64_t i = 0; i < n; i += W) {
    const vf log_index = load(score + i) - log_z, target = load(p + i) * per_mass;
    losses += target > 0.f ? target * (logarithm(target) - log_index) : target;
    const vf slope = load(numerator + i) * share - target;
    for (int h = 0; h < HEADS; h++) {
      const vf d = load(dot + h * pitch + i);
      by_weight[h] += slope * d;
      store(dot + h * pitch + i, RELU ? (d > 0.f ? slope * weight[h] : vf{}) : slope * weight[h]);
    }
  }
  a.row_loss[row] = sum(losses);
  if (!a.wanted) return;
  if (a.grad_weights)
    for (int h = 0; h < HEADS; h++) a.grad_weights[row * HEADS + h] = sum(by_weight[h]);
  for (int h = 0; h < HEADS; h++) {
    Index even = {}, odd = {};  // two sums, to hide the latency of adding
    const auto add = [&](int64_t i, Index& grad) {
      const float slope = dot[h * pitch + i];
      for (int x = 0; x < Index::N; x++) {
        const int64_t at = index[i] * IP + x * W;
        grad.x[x] += slope * load(index_keys + at);
        store(part_keys + at, load(part_keys + at) + slope * q[h].x[x]);
      }
    };
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
      add(i, even);
      add(i + 1, odd);
    }
    if (i < n) add(i, even);
    for (int x = 0; x < Index::N; x++) even.x[x] += odd.x[x];
    even.write(a.grad_queries + (row * HEADS + h) * DIM);
  }
}

// Rows of [batch, head, time, D] side by side.
template <int D>
void pack_all(const Heads& from, int64_t batch, int64_t heads, int64_t time, float* to, int threads) {
  const int64_t chunk = 1024, chunks = (time + chunk - 1) / chunk;
  parallel(threads, batch * heads * chunks, [&](int64_t unit, int) {
    const int64_t row = unit / chunks, begin = unit % chunks * chunk, end = std::min(begin + chunk, time);
    pack<D>(from, row / heads, row % heads, begin, end, to + (row * time + begin) * PADDED<D>);
  });
}

// The mean over valid rows, and the gradients, summed over rows and parts until here, as those of the mean.
void finish(const Loss& a) {
  const int64_t rows = a.batch * a.groups * a.time, key_rows = a.batch * a.key_groups * a.length;
  double total = 0, valid = 0;
  for (int64_t row = 0; row < rows; row++) total += a.row_loss[row], valid += a.valid[row];
  const float share = float(1 / std::max(valid, 1.));
  *a.loss = float(total) * share;
  if (!a.wanted) return;
  for (int64_t i = 0; i < rows * HEADS * DIM; i++) a.grad_queries[i] *= share;
  for (int64_t i = 0; a.grad_weights && i < rows * HEADS; i++) a.grad_weights[i] *= share;
  for (int64_t row = 0; row < key_rows; row++) {
    Index grad = {};
    for (int64_t part = 0; part < a.parts; part++)
      for (int x = 0; x < Index::N; x++) grad.x[x] += load(a.part_keys + (part * key_rows + row) * IP + x * W);
    for (vf& x : grad.x) x *= share;
    grad.write(a.grad_keys + row * DIM);
  }
}

}  // namespace

extern "C" int64_t size_of(int64_t structure) { return sizes<Loss, Heads>(structure); }
extern "C" int64_t loss_pitch() { return P; }
extern "C" int64_t loss_index_pitch() { return IP; }

extern "C" int64_t loss_scratch(int64_t rows, int64_t slots) {
  return round_up((rows + 2 + HEADS) * round_up(slots, W), 16);
}

// Returns whether all positions were keys.
extern "C" bool indexer_loss(const Loss* args) {
  const Loss& a = *args;
  for (int64_t row = 0; row < a.batch * a.selection_groups * a.time; row++) {
    const int64_t n = a.counts[row];
    const int32_t* index = a.positions + row * a.slots;
    if (n > a.slots || (n > 0 && (index[0] < 0 || index[n - 1] >= a.length))) return false;
  }
  const int threads = int(a.threads);
  const bool sums_heads = a.packed_k;
  if (sums_heads) pack_all<HEAD_DIM>(a.k, a.batch, a.kv_heads, a.length, a.packed_k, threads);
  pack_all<DIM>(a.index_k, a.batch, a.key_groups, a.length, a.packed_index_k, threads);
  const int64_t pitch = round_up(a.slots, W), key_size = a.key_groups * a.length * IP;
  parallel(threads, a.batch * a.parts, [&](int64_t unit, int thread) {
    const int64_t b = unit / a.parts, part = unit % a.parts;
    float* part_keys = a.part_keys + (part * a.batch + b) * key_size;
    if (a.wanted) std::fill_n(part_keys, key_size, 0.f);
    float* sums = a.scratch + thread * a.scratch_per_thread;
    float *score = sums + a.rows * pitch, *numerator = score + pitch, *dot = numerator + pitch;
    for (int64_t from = part * a.time / a.parts, end = (part + 1) * a.time / a.parts; from < end; from += a.rows) {
      const int64_t to = std::min(from + a.rows, end);
      for (int64_t g = 0; g < a.groups; g++) {
        const int64_t selection = b * a.selection_groups + (a.selection_groups > 1 ? g : 0);
        const int64_t target = a.target_groups > 1 ? g : 0;
        const int64_t heads = a.heads / a.target_groups;
        const int64_t keys = g / (a.groups / a.key_groups) * a.length * IP;
        if (sums_heads)
          for (int64_t h = target * heads; h < (target + 1) * heads; h++) {
            const int64_t kv_head = h / (a.heads / a.kv_heads);
            add_probabilities(a, a.packed_k + (b * a.kv_heads + kv_head) * a.length * P, b, h, selection, from, to,
                              h == target * heads, sums);
          }
        for (int64_t t = from; t < to; t++) {
          const int64_t n = a.counts[selection * a.time + t];
          const int32_t* index = a.positions + (selection * a.time + t) * a.slots;
          float* p = sums + (t - from) * pitch;
          if (a.p)
            for (int64_t i = 0; i < n; i++)
              p[i] = a.p[b * a.p_batch + target * a.p_group + t * a.p_time + index[i] * a.p_key];
          if (a.mass)
            memcpy(p, a.mass + ((target * a.batch + b) * a.time + t) * round_up(a.slots, 16), n * sizeof(float));
          row_loss(a, (b * a.groups + g) * a.time + t, a.packed_index_k + b * key_size + keys, part_keys + keys, index,
                   n, p, score, numerator, dot);
        }
      }
    }
  });
  finish(a);
  return true;
}
