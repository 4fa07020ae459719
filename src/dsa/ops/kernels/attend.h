// What attention over selected keys is told. Compiled for one head dimension.
#pragma once
#include "parallel.h"
#include "rows.h"

struct Attend {
  Heads q, k, v, out;
  float* logsumexp;          // [batch, head, time]
  const float* sink;         // [head], or null
  const int32_t *positions;  // [batch, group, time, slot]
  const int32_t *counts;     // [batch, group, time]
  int32_t* bounds;           // [batch, group, tiles + 1, time]: first slot of each tile
  int64_t batch, heads, kv_heads, groups, time, keys, slots;
  double scale;              // of the logits
  int64_t tile;              // keys per tile
  int64_t parts;             // the queries (forward) or tiles (backward) of a head are split into so many units
  int64_t threads;
  float* scratch;
  int64_t scratch_per_thread;

  int64_t tiles() const { return (keys + tile - 1) / tile; }
  int64_t row(int64_t b, int64_t h) const { return b * groups + h / (heads / groups); }
  int64_t shared() const { return heads / kv_heads; }  // heads that share their keys and values
};

constexpr int D = HEAD_DIM;
using R = Row<D>;
constexpr int64_t P = PADDED<D>;

// Slots of the keys of one (batch, group) by tile.
struct Slots {
  const int32_t *positions, *bounds;
  int64_t slots, time;
  Slots(const Attend& a, int64_t row) : slots(a.slots), time(a.time) {
    positions = a.positions + row * time * slots;
    bounds = a.bounds + row * (a.tiles() + 1) * time;
  }
  int64_t begin(int64_t tile, int64_t t) const { return bounds[tile * time + t]; }
  int64_t end(int64_t tile, int64_t t) const { return bounds[(tile + 1) * time + t]; }
  const int32_t* at(int64_t t, int64_t slot) const { return positions + t * slots + slot; }
};

// The first of a query's sorted keys in each tile.
inline void find_bounds(const Attend& a, int64_t row, int64_t t, const int32_t* keys, int32_t count) {
  const int64_t tiles = a.tiles();
  int32_t* bounds = a.bounds + row * (tiles + 1) * a.time + t;
  int32_t slot = 0;
  bounds[0] = 0;
  for (int64_t tile = 1; tile < tiles; tile++) {
    slot = int32_t(std::lower_bound(keys + slot, keys + count, int32_t(tile * a.tile)) - keys);
    bounds[tile * a.time] = slot;
  }
  bounds[tiles * a.time] = count;
}
