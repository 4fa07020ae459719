// Gradients of attention over selected keys.
//
// The keys of one (batch, key/value head) at a time are packed in tiles of a few MB together with what is added to
// them, and all queries of all heads that share them, ROWS at a time, pass over a tile before the next one comes.
#include "slopes.h"

struct Backward : Attend {
  Plan plan;
  Heads grad_out, grad_q, grad_k, grad_v;  // grad_q.data: `parts` tensors, part_stride apart
  int64_t part_stride;
  float* grad_sink;                        // [batch, head, parts]
};

namespace {

// The keys of one tile.
template <class Blocks>
struct Tile {
  float* records;                     // [key, BACKWARD], zeros up to whole blocks
  typename Blocks::Column* prepared;  // of each column of blocks, once known
  int64_t begin, end;
  std::vector<int8_t> known;  // of each column of blocks: whether all its values are finite

  void read(const Backward& a, int64_t b, int64_t kv_head, int64_t tile) {
    begin = tile * a.tile;
    end = std::min(begin + a.tile, a.keys);
    const int64_t columns = (end - begin + COLUMNS - 1) / COLUMNS;
    pack<D>(a.k, b, kv_head, begin, end, records, BACKWARD);
    pack<D>(a.v, b, kv_head, begin, end, records + P, BACKWARD);
    for (int64_t s = 0; s < columns * COLUMNS; s++) {
      const bool key = s < end - begin;
      memset(records + s * BACKWARD + (key ? 2 * P : 0), 0, (key ? 2 : 4) * P * sizeof(float));
    }
    known.assign(columns, -1);
  }

  float* row(int64_t key) const { return records + (key - begin) * BACKWARD; }
  float* first(const Block& block) const { return row(block.column * COLUMNS); }
  bool has(const Block& block) const { return block.column * COLUMNS >= begin && block.column * COLUMNS < end; }

  // Its keys, prepared; null if they cannot be multiplied by the zeros of what was not selected, as infinity and NaN.
  const typename Blocks::Column* column(const Block& block, const Blocks& blocks) {
    const int64_t at = block.column - begin / COLUMNS;
    if (known[at] < 0) {
      vf zero = {};
      for (int64_t s = 0; s < COLUMNS; s++)
        for (int64_t x = 0; x < 2 * P; x += W) zero += load(first(block) + s * BACKWARD + x) * 0.f;
      known[at] = sum(zero) == 0.f;
      if (known[at]) blocks.prepare(first(block), prepared + at);
    }
    return known[at] ? prepared + at : nullptr;
  }
};

inline bool finite(const float* x, int64_t n) {
  vf zero = {};
  for (int64_t i = 0; i < n; i += W) zero += load(x + i) * 0.f;
  return sum(zero) == 0.f;
}

// One query's keys in a block that is not computed whole.
struct Listed {
  int32_t index[COLUMNS];
  int64_t n = 0;
  Listed(const Block& block, int64_t i) {
    for (int64_t s = 0; s < COLUMNS; s++)
      if (block.chosen[s] >> i & 1) index[n++] = int32_t(block.column * COLUMNS + s);
  }
};

// Rows of ROWS queries, times `scale`; zeros where there are none.
void read_strip(const Heads& from, int64_t b, int64_t h, int64_t t0, int64_t rows, float scale, float* to) {
  for (int64_t i = 0; i < ROWS; i++) {
    R row = {};
    if (i < rows) row = R::read(from.at(b, h, t0 + i));
    for (int x = 0; x < R::N; x++) store(to + i * P + x * W, row.x[x] * scale);
  }
}

void fetch_strip(const Heads& of, int64_t b, int64_t h, int64_t t0, int64_t time) {
  for (int64_t t = t0; t < std::min(t0 + ROWS, time); t++) fetch(of.at(b, h, t), D);
}

void backward_keys(const int32_t* index, int64_t n, float* rows, int64_t i, Slopes& s) {
  const R q = R::read_padded(s.q + i * P), grad = R::read_padded(s.grad + i * P);
  R dq = R::read_padded(s.dq + i * P);
  for (int64_t j = 0; j < n; j += W) {
    const int64_t m = std::min<int64_t>(n - j, W);
    const int32_t* some = index + j;
    float p[W], ds[W];
    const vf probability = exponential(dots<D, BACKWARD>(q, rows, some, m) - s.logsumexp[i]);
    store(p, probability);
    store(ds, probability * (dots<D, BACKWARD>(grad, rows + P, some, m) - s.delta[i]));
    for (int64_t l = 0; l < m; l++) {
      float* const record = rows + some[l] * BACKWARD;
      for (int x = 0; x < R::N; x++) {
        float *dk = record + 2 * P + x * W, *dv = record + 3 * P + x * W;
        dq.x[x] += ds[l] * load(record + x * W);
        store(dk, load(dk) + ds[l] * q.x[x]);
        store(dv, load(dv) + p[l] * grad.x[x]);
      }
    }
  }
  for (int x = 0; x < R::N; x++) store(s.dq + i * P + x * W, dq.x[x]);
}

// What a query's gradients need of its output: the product with its gradient.
void read_delta(const Backward& a, int64_t b, int64_t h, int64_t part, float* delta) {
  const float* logsumexp = a.logsumexp + (b * a.heads + h) * a.time;
  double grad_sink = 0;
  for (int64_t t = 0; t < a.time; t++) {
    const R out = R::read(a.out.at(b, h, t)), grad = R::read(a.grad_out.at(b, h, t));
    vf product = {};
    for (int x = 0; x < R::N; x++) product += out.x[x] * grad.x[x];
    delta[t] = sum(product);
    if (a.sink && part == 0) grad_sink -= std::exp(a.sink[h] - logsumexp[t]) * delta[t];
  }
  a.grad_sink[(b * a.heads + h) * a.parts + part] = float(grad_sink);
}

// Adds to the gradients of one head's queries by one tile of its keys, and to those of the keys.
template <class Blocks>
void backward_head(const Backward& a, int64_t b, int64_t h, int64_t n, bool first, Tile<Blocks>& tile,
                   const Heads& grad_q, const float* delta, Slopes& s, Blocks& whole) {
  const Plan& plan = a.plan;
  const int64_t row = a.row(b, h), time = a.time;
  const float scale = float(a.scale);
  const Slots slots(a, row);
  const Block* all_blocks = plan.blocks + row * strips(a) * plan.most;
  const int32_t* block_counts = plan.block_counts + row * strips(a);
  const float* logsumexp = a.logsumexp + (b * a.heads + h) * time;
  float* rows = tile.records - tile.begin * BACKWARD;
  for (int64_t strip = 0; strip < strips(a); strip++) {
    const int64_t t0 = strip * ROWS, count = std::min(ROWS, time - t0);
    const Block* blocks = all_blocks + strip * plan.most;
    bool idle = !first;
    for (int64_t t = t0; idle && t < t0 + count; t++) idle = slots.begin(n, t) == slots.end(n, t);
    for (int32_t j = 0; idle && j < block_counts[strip]; j++) idle = !tile.has(blocks[j]);
    if (idle) continue;
    fetch_strip(a.q, b, h, t0 + ROWS, time);
    fetch_strip(a.grad_out, b, h, t0 + ROWS, time);
    if (!first) fetch_strip(grad_q, b, h, t0 + ROWS, time);
    read_strip(a.q, b, h, t0, count, scale, s.q);
    read_strip(a.grad_out, b, h, t0, count, 1.f, s.grad);
    if (first) memset(s.dq, 0, sizeof s.dq);
    else read_strip(grad_q, b, h, t0, count, 1.f / scale, s.dq);
    for (int64_t i = 0; i < ROWS; i++) {
      s.logsumexp[i] = i < count ? logsumexp[t0 + i] : 0.f;
      s.delta[i] = i < count ? delta[t0 + i] : 0.f;
    }
    bool begun = false, usable = false;
    for (int32_t j = 0; j < block_counts[strip]; j++) {
      const Block& block = blocks[j];
      if (!tile.has(block)) continue;
      if (!begun) {
        begun = true;
        usable = finite(s.q, STRIP) && finite(s.grad, STRIP);
        if (usable) whole.begin(s);
      }
      const typename Blocks::Column* column = usable ? tile.column(block, whole) : nullptr;
      if (column) {
        whole.add(block, tile.first(block), column, s);
        continue;
      }
      for (int64_t i = 0; i < count; i++) {
        const Listed some(block, i);
        if (some.n) backward_keys(some.index, some.n, rows, i, s);
      }
    }
    if (usable) whole.end(s);
    for (int64_t i = 0; i < count; i++) {
      const int64_t t = t0 + i, from = slots.begin(n, t), size = slots.end(n, t) - from;
      const int32_t* rest = block_counts[strip] ? plan.rest + (row * time + t) * a.slots : slots.at(t, 0);
      if (size) backward_keys(rest + from, size, rows, i, s);
      R dq = R::read_padded(s.dq + i * P);
      for (vf& x : dq.x) x *= scale;
      dq.write(grad_q.at(b, h, t));
    }
  }
}

// The gradients of the heads that share a key/value head, by one part of its keys.
// Only this unit adds to the gradients of its keys, in the order of the heads and queries: the same bits on every run.
// (Gathering from the transposed selection instead, without scattering, was measured 1.3 to 2 times slower.)
template <class Blocks>
void backward_unit(const Backward& a, int64_t unit, float* memory) {
  const int64_t tiles = a.tiles(), pitch = round_up(a.time, 16), shared = a.shared();
  const int64_t part = unit % a.parts, kv_head = unit / a.parts % a.kv_heads, b = unit / a.parts / a.kv_heads;
  float* const delta = memory + a.tile * BACKWARD;
  Tile<Blocks> tile{memory, (typename Blocks::Column*)(delta + shared * pitch), 0, 0, {}};
  const int64_t first = part * tiles / a.parts, end = (part + 1) * tiles / a.parts;
  Heads grad_q = a.grad_q;
  grad_q.data += part * a.part_stride;
  for (int64_t i = 0; i < shared; i++) read_delta(a, b, kv_head * shared + i, part, delta + i * pitch);

  alignas(64) Slopes s;
  Blocks whole;
  for (int64_t n = first; n < end; n++) {
    tile.read(a, b, kv_head, n);
    for (int64_t i = 0; i < shared; i++)
      backward_head(a, b, kv_head * shared + i, n, n == first, tile, grad_q, delta + i * pitch, s, whole);
    for (int64_t key = tile.begin; key < tile.end; key++) {
      R::read_padded(tile.row(key) + 2 * P).write(a.grad_k.at(b, kv_head, key));
      R::read_padded(tile.row(key) + 3 * P).write(a.grad_v.at(b, kv_head, key));
    }
  }
}

template <class Blocks>
void backward_units(const Backward& a) {
  parallel(int(a.threads), a.batch * a.kv_heads * a.parts, [&](int64_t unit, int thread) {
    backward_unit<Blocks>(a, unit, a.scratch + thread * a.scratch_per_thread);
  });
}

}  // namespace

extern "C" int64_t size_of(int64_t structure) { return sizes<Backward, Heads>(structure); }
extern "C" int64_t columns_of_a_block() { return COLUMNS; }
extern "C" int64_t rows_of_a_strip() { return ROWS; }
extern "C" int64_t bytes_of_a_block() { return sizeof(Block); }
extern "C" int64_t blocks_of_a_strip(int64_t keys, int64_t slots) { return most_blocks(keys, slots); }
extern "C" int64_t backward_scratch(int64_t tile, int64_t time, int64_t shared) {
  const int64_t prepared = on_matrix_unit() ? sizeof(MatrixBlocks::Column) : sizeof(VectorBlocks::Column);
  return round_up(tile * BACKWARD + shared * round_up(time, 16) + tile / COLUMNS * (prepared / sizeof(float)), 16);
}

// dv = P^T do, ds = P (do v^T - delta), dq = ds k, dk = ds^T q, with P made anew from the log-sum-exp.
extern "C" void attend_backward(const Backward* args) {
  const Backward& a = *args;
  parallel(int(a.threads), a.batch * a.groups * strips(a), [&](int64_t unit, int) {
    plan_strip(a, a.plan, unit / strips(a), unit % strips(a));
  });
  if (on_matrix_unit()) backward_units<MatrixBlocks>(a);
  else backward_units<VectorBlocks>(a);
}
