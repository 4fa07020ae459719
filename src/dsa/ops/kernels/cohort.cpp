// The losses of several indexers over all causal keys, with their gradients, against one target that is computed once.
// All sizes are known at run time only, so that one build serves every indexer.
//
// KL(p || softmax(I)) of a row, p = attention summed over heads. Queries go in blocks of ROWS through matrix products;
// what is computed for an indexer depends on nothing of the others.
#include <numeric>
#include "multiply.h"
#include "parallel.h"
#include "rows.h"

struct Indexer {
  const float *queries, *weights;  // [batch, group, time, head, dim]; [batch, group, time, head] or null
  Heads keys;                      // [batch, keygroup, key, dim]
  int64_t groups, key_groups, heads, dim, relu, wanted;  // wanted: whether gradients are
  float* turned;                   // room for [batch, keygroup, dim, pitch]
  float* part_keys;                // the same for every part: gradients by keys
  float* row_loss;                 // room for [batch, group, time]
  float *grad_queries, *grad_keys, *grad_weights;  // of the mean, dense, shaped as the features
  float* loss;                     // the mean over valid rows
};

struct Cohort {
  const Indexer* indexers;
  int64_t count;
  Heads q, k;              // attention's, [batch, head, time, dim]; keys of one head may serve several of queries
  const float* logsumexp;  // [batch, head, time], or null: the target is given
  float* turned;           // room for [batch, key head, dim, pitch]
  const float* p;          // the target itself [batch, target group, time, key]
  int64_t p_batch, p_group, p_time, p_key;  // its strides
  int64_t batch, heads, key_heads, dim, groups, time, length;
  float scale;
  int32_t* valid;          // room for [batch, target group, time]: rows with probability
  int64_t parts;           // the queries of a row of the batch are split into so many units
  int64_t threads;
  float* scratch;
  int64_t scratch_per_thread;
};

namespace {

constexpr int64_t ROWS = 16;
constexpr int REGISTERS = W == 16 ? 16 : 8, VECTORS = W == 16 ? 4 : 2;

// Floats of a row of keys: room for whole vectors, and no two rows have equal low address bits.
int64_t pitch_of(int64_t keys) { return (round_up(keys, 16) / 16 | 1) * 16; }

template <int N>
void columns(float* c, int64_t c_row, int64_t rows, const float* a, int64_t a_row, int64_t a_column, const float* b,
             int64_t b_row, int64_t n, bool add) {
  constexpr int M = N == 3 ? 4 : REGISTERS / N;
  int64_t m = 0;
  for (; m + M <= rows; m += M)
    multiply_rows<M, N>(c + m * c_row, c_row, a + m * a_row, a_row, a_column, b, b_row, n, add);
  for (; m + 4 <= rows; m += 4)
    multiply_rows<4, N>(c + m * c_row, c_row, a + m * a_row, a_row, a_column, b, b_row, n, add);
  for (; m < rows; m++) multiply_rows<1, N>(c + m * c_row, c_row, a + m * a_row, a_row, a_column, b, b_row, n, add);
}

// C[m, x] (+)= sum over i < n of A[m, i] * B[i, x], for `rows` and `width`, a multiple of W.
void product(float* c, int64_t c_row, int64_t rows, int64_t width, const float* a, int64_t a_row, int64_t a_column,
             const float* b, int64_t b_row, int64_t n, bool add) {
  int64_t x = 0;
  for (; x + VECTORS * W <= width; x += VECTORS * W)
    columns<VECTORS>(c + x, c_row, rows, a, a_row, a_column, b + x, b_row, n, add);
  switch ((width - x) / W) {
    case 3: return columns<3>(c + x, c_row, rows, a, a_row, a_column, b + x, b_row, n, add);
    case 2: return columns<2>(c + x, c_row, rows, a, a_row, a_column, b + x, b_row, n, add);
    case 1: return columns<1>(c + x, c_row, rows, a, a_row, a_column, b + x, b_row, n, add);
  }
}

// C[m, x] = sum over i < n of A[m, i] * B[x, i], for `rows` and `width`; n is rounded up to whole vectors.
void product_of_rows(float* c, int64_t c_row, int64_t rows, int64_t width, const float* a, int64_t a_row,
                     const float* b, int64_t b_row, int64_t n) {
  constexpr int M = W / 4;
  for (int64_t m = 0; m < rows; m += M)
    for (int64_t x = 0; x < width; x += 4) {
      const float *row[M], *column[4];  // past the last one the last again
      for (int k = 0; k < M; k++) row[k] = a + std::min(m + k, rows - 1) * a_row;
      for (int j = 0; j < 4; j++) column[j] = b + std::min(x + j, width - 1) * b_row;
      vf products[M * 4] = {};
      for (int64_t i = 0; i < n; i += W) {
        vf y[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) y[j] = load(column[j] + i);
#pragma GCC unroll 4
        for (int k = 0; k < M; k++) {
          const vf z = load(row[k] + i);
#pragma GCC unroll 4
          for (int j = 0; j < 4; j++) products[k * 4 + j] += z * y[j];
        }
      }
      float out[W];
      store(out, sums(products));
      for (int k = 0; k < M && m + k < rows; k++)
        for (int j = 0; j < 4 && x + j < width; j++) c[(m + k) * c_row + x + j] = out[k * 4 + j];
    }
}

// Rows for columns: `rows` x `width` floats become `width` x `rows`.
void turn(const float* from, int64_t from_row, int64_t rows, int64_t width, float* to, int64_t to_row) {
  constexpr int64_t TILE = 8;
  for (int64_t i = 0; i < rows; i += TILE)
    for (int64_t x = 0; x < width; x += TILE) {
      const float* source = from + i * from_row + x;
      float* target = to + x * to_row + i;
      if (i + TILE <= rows && x + TILE <= width) {
#pragma GCC unroll 8
        for (int64_t n = 0; n < TILE; n++)
#pragma GCC unroll 8
          for (int64_t m = 0; m < TILE; m++) target[n * to_row + m] = source[m * from_row + n];
      } else {
        for (int64_t n = 0; n < std::min(TILE, width - x); n++)
          for (int64_t m = 0; m < std::min(TILE, rows - i); m++) target[n * to_row + m] = source[m * from_row + n];
      }
    }
}

// Keys as columns; the rest of a row is zero.
void turn_keys(const Heads& keys, int64_t b, int64_t h, int64_t length, int64_t dim, float* to) {
  const int64_t pitch = pitch_of(length);
  turn(keys.at(b, h, 0), keys.time, length, dim, to, pitch);
  for (int64_t d = 0; d < dim; d++) std::fill(to + d * pitch + length, to + (d + 1) * pitch, 0.f);
}

// Rows that see a key. Mostly all of them are valid, so slopes are divided by this number at once.
int64_t expected(const Cohort& a, const Indexer& x) { return a.batch * x.groups * std::min(a.time, a.length); }

struct Worker {
  const Cohort& a;
  const int64_t pitch, b;
  float *p, *entropy, *slope, *dot;

  Worker(const Cohort& a, int64_t b, float* memory) : a(a), pitch(pitch_of(a.length)), b(b) {
    p = memory;
    dot = p + ROWS * pitch;
    slope = dot + most_heads(a) * ROWS * pitch;
    entropy = slope + pitch;
  }
  static int64_t size(const Cohort& a) { return (ROWS + most_heads(a) * ROWS + 1) * pitch_of(a.length) + ROWS; }
  static int64_t most_heads(const Cohort& a) {
    int64_t most = 1;
    for (int64_t n = 0; n < a.count; n++) most = std::max(most, a.indexers[n].heads);
    return most;
  }

  // Keys that query t sees.
  int64_t seen(int64_t t) const { return std::max<int64_t>(t + 1 + a.length - a.time, 0); }

  // The target of the queries [from, to), ROWS at most, normalised; minus its entropy; and which rows have one.
  void target(int64_t group, int64_t from, int64_t to) const {
    const int64_t width = round_up(seen(to - 1), W), heads = a.heads / a.groups;
    if (!a.logsumexp) {
      for (int64_t t = from; t < to; t++)
        for (int64_t s = 0; s < seen(t); s++)
          p[(t - from) * pitch + s] = a.p[b * a.p_batch + group * a.p_group + t * a.p_time + s * a.p_key];
    } else {
      for (int64_t h = group * heads; h < (group + 1) * heads; h++) {
        const int64_t key_head = h / (a.heads / a.key_heads);
        const float* keys = a.turned + (b * a.key_heads + key_head) * a.dim * pitch;
        product(dot, pitch, to - from, width, a.q.at(b, h, from), a.q.time, 1, keys, pitch, a.dim, false);
        for (int64_t t = from; t < to; t++) {
          const float logsumexp = a.logsumexp[(b * a.heads + h) * a.time + t];
          float *row = p + (t - from) * pitch, *logit = dot + (t - from) * pitch;
          for (int64_t i = 0; i < seen(t); i += W) {
            const vf e = exponential(load(logit + i) * a.scale - logsumexp);
            store(row + i, h == group * heads ? e : load(row + i) + e);
          }
        }
      }
    }
    for (int64_t t = from; t < to; t++) {
      float* row = p + (t - from) * pitch;
      const int64_t n = seen(t);
      vf masses = {}, entropies = {};
      for (int64_t i = 0; i < n; i += W) {
        if (n - i < W) store(row + i, lanes() < int32_t(n - i) ? load(row + i) : vf{});
        masses += load(row + i);
      }
      const float mass = sum(masses), per_mass = 1.f / mass;
      const bool valid = mass > 0 || mass != mass;
      a.valid[(b * a.groups + group) * a.time + t] = valid;
      if (!valid) continue;
      for (int64_t i = 0; i < n; i += W) {
        const vf x = load(row + i) * per_mass;
        store(row + i, x);
        entropies += x > 1.2e-38f ? x * logarithm(x) : x;
      }
      entropy[t - from] = sum(entropies);
    }
  }

  // Losses and gradients of the queries [from, to), ROWS at most, of one group of an indexer.
  void block(const Indexer& x, int64_t g, int64_t part, int64_t from, int64_t to) const {
    const int64_t keys = seen(to - 1), width = round_up(keys, W), rows = (to - from) * x.heads;
    const int64_t row = (b * x.groups + g) * a.time, key_group = g / (x.groups / x.key_groups);
    const int64_t at = (b * x.key_groups + key_group) * x.dim * pitch, first = (row + from) * x.heads;
    const float *turned = x.turned + at, *queries = x.queries + first * x.dim;
    product(dot, pitch, rows, width, queries, x.dim, 1, turned, pitch, x.dim, false);
    const int32_t* valid = a.valid + (b * a.groups + (a.groups > 1 ? g : 0)) * a.time;
    for (int64_t t = from; t < to; t++) {
      const float* weights = x.weights ? x.weights + (row + t) * x.heads : nullptr;
      float* by_weight = x.wanted && x.grad_weights ? x.grad_weights + (row + t) * x.heads : nullptr;
      float* own = dot + (t - from) * x.heads * pitch;
      if (valid[t]) {
        const auto run = x.relu ? &Worker::slopes<true> : &Worker::slopes<false>;
        const float cross = (this->*run)(x, weights, by_weight, p + (t - from) * pitch, own, seen(t), width);
        x.row_loss[row + t] = entropy[t - from] - cross;
      } else {
        x.row_loss[row + t] = 0;
        for (int64_t h = 0; h < x.heads; h++) std::fill_n(own + h * pitch, width, 0.f);
        if (by_weight) std::fill_n(by_weight, x.heads, 0.f);
      }
    }
    if (!x.wanted) return;
    float* by_keys = x.part_keys + part * a.batch * x.key_groups * x.dim * pitch + at;
    product(by_keys, pitch, x.dim, width, queries, 1, x.dim, dot, pitch, rows, true);
    float* by_queries = x.grad_queries + first * x.dim;
    if (x.dim % W == 0)
      product(by_queries, x.dim, rows, x.dim, dot, pitch, 1, x.keys.at(b, key_group, 0), x.keys.time, keys, false);
    else
      product_of_rows(by_queries, x.dim, rows, x.dim, dot, pitch, turned, pitch, width);
  }

  // Minus the cross-entropy of one row over n keys. For each head `dot` holds the dot products, and in the end the
  // slopes of the mean loss by them, zero from n to `width`.
  template <bool RELU>
  float slopes(const Indexer& x, const float* weights, float* by_weight, const float* p, float* dot, int64_t n,
               int64_t width) const {
    const auto active = [](vf d) { return RELU ? (d < 0.f ? vf{} : d) : d; };
    vf highest = splat(-INF);
    for (int64_t h = 0; h < x.heads; h++) {
      const float* own = dot + h * pitch;
      const float weight = weights ? weights[h] : 1.f;
      const bool last = h == x.heads - 1;
      for (int64_t i = 0; i < n; i += W) {
        vf total = active(load(own + i)) * weight;
        if (h) total += load(slope + i);
        if (n - i < W) total = lanes() < int32_t(n - i) ? total : splat(-INF);
        store(slope + i, total);
        if (last) highest = larger(total, highest);
      }
    }
    const float base = largest(highest);
    vf exponentials = {}, products = {};
    for (int64_t i = 0; i < n; i += W) {
      const vf relative = load(slope + i) - base, e = exponential(relative), target = load(p + i);
      store(slope + i, e);
      exponentials += e;
      products += (n - i < W ? (lanes() < int32_t(n - i) ? relative : vf{}) : relative) * target;
    }
    const float z = sum(exponentials), row_share = 1.f / float(expected(a, x)), share = row_share / z;
    const float cross = sum(products) - logarithm(splat(z))[0];
    if (!x.wanted) return cross;
    for (int64_t i = 0; i < n; i += W) store(slope + i, load(slope + i) * share - load(p + i) * row_share);
    for (int64_t h = 0; h < x.heads; h++) {
      float* own = dot + h * pitch;
      const float weight = weights ? weights[h] : 1.f;
      vf sums = {};
      for (int64_t i = 0; i < n; i += W) {
        const vf d = load(own + i), s = load(slope + i);
        sums += s * active(d);
        store(own + i, RELU ? (d > 0.f ? s * weight : vf{}) : s * weight);
      }
      const int64_t end = round_up(n, W);
      std::fill_n(own + end, width - end, 0.f);
      if (by_weight) by_weight[h] = sum(sums);
    }
    return cross;
  }

  void run(int64_t part) const {
    for (int64_t n = 0; n < a.count; n++) {
      const Indexer& x = a.indexers[n];
      const int64_t size = x.key_groups * x.dim * pitch;
      if (x.wanted) std::fill_n(x.part_keys + (part * a.batch + b) * size, size, 0.f);
    }
    const int64_t blocks = (a.time + ROWS - 1) / ROWS, end = std::min((part + 1) * blocks / a.parts * ROWS, a.time);
    for (int64_t from = part * blocks / a.parts * ROWS; from < end; from += ROWS) {
      const int64_t to = std::min(from + ROWS, end);
      for (int64_t group = 0; group < a.groups; group++) {
        target(group, from, to);
        for (int64_t n = 0; n < a.count; n++)
          for (int64_t g = 0; g < a.indexers[n].groups; g++)
            if (a.groups == 1 || g == group) block(a.indexers[n], g, part, from, to);
      }
    }
  }
};

// The mean over valid rows.
void finish_loss(const Cohort& a, const Indexer& x, int64_t valid) {
  double total = 0;
  for (int64_t row = 0; row < a.batch * x.groups * a.time; row++) total += x.row_loss[row];
  *x.loss = float(total / double(std::max<int64_t>(valid, 1)));
}

// The gradients of one row of the batch: those by keys summed over parts, and all divided by the number of valid rows.
void finish_gradients(const Cohort& a, const Indexer& x, int64_t b, int64_t valid) {
  const int64_t pitch = pitch_of(a.length), rows = x.key_groups * x.dim, size = rows * pitch;
  float* first = x.part_keys + b * size;
  for (int64_t part = 1; part < a.parts; part++) {
    const float* other = first + part * a.batch * size;
    for (int64_t i = 0; i < size; i += W) store(first + i, load(first + i) + load(other + i));
  }
  const int64_t keys = x.key_groups * a.length * x.dim, weights = x.groups * a.time * x.heads;
  for (int64_t g = 0; g < x.key_groups; g++)
    turn(first + g * x.dim * pitch, pitch, x.dim, a.length, x.grad_keys + b * keys + g * a.length * x.dim, x.dim);
  if (valid == expected(a, x)) return;
  const float more = float(expected(a, x)) / float(std::max<int64_t>(valid, 1));
  for (int64_t i = 0; i < keys; i++) x.grad_keys[b * keys + i] *= more;
  for (int64_t i = 0; i < weights * x.dim; i++) x.grad_queries[b * weights * x.dim + i] *= more;
  for (int64_t i = 0; x.grad_weights && i < weights; i++) x.grad_weights[b * weights + i] *= more;
}

}  // namespace

extern "C" int64_t size_of(int64_t structure) { return sizes<Cohort, Indexer, Heads>(structure); }
extern "C" int64_t cohort_pitch(int64_t keys) { return pitch_of(keys); }
extern "C" int64_t cohort_scratch(const Cohort* a) { return round_up(Worker::size(*a), 16); }

extern "C" void cohort_losses(const Cohort* args) {
  const Cohort& a = *args;
  const int threads = int(a.threads);
  const int at_the_ends = a.batch * a.count < 16 ? 1 : threads;  // for little work threads cost more than they save
  const int64_t pitch = pitch_of(a.length);
  parallel(at_the_ends, a.batch * (a.count + 1), [&](int64_t unit, int) {
    const int64_t b = unit / (a.count + 1), n = unit % (a.count + 1);
    if (n < a.count) {
      const Indexer& x = a.indexers[n];
      for (int64_t g = 0; g < x.key_groups; g++)
        turn_keys(x.keys, b, g, a.length, x.dim, x.turned + (b * x.key_groups + g) * x.dim * pitch);
    } else if (a.logsumexp) {
      for (int64_t h = 0; h < a.key_heads; h++)
        turn_keys(a.k, b, h, a.length, a.dim, a.turned + (b * a.key_heads + h) * a.dim * pitch);
    }
  });
  // The last queries see the most keys: their parts first, so that the threads end together.
  parallel(threads, a.batch * a.parts, [&](int64_t unit, int thread) {
    Worker(a, unit % a.batch, a.scratch + thread * a.scratch_per_thread).run(a.parts - 1 - unit / a.batch);
  });
  const int64_t found = std::accumulate(a.valid, a.valid + a.batch * a.groups * a.time, int64_t(0));
  parallel(at_the_ends, a.count * (a.batch + 1), [&](int64_t unit, int) {
    const Indexer& x = a.indexers[unit / (a.batch + 1)];
    const int64_t b = unit % (a.batch + 1), valid = found * (x.groups / a.groups);
    if (b == a.batch) finish_loss(a, x, valid);
    else if (x.wanted) finish_gradients(a, x, b, valid);
  });
}
