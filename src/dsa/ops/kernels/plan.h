// Which selected pairs are computed in blocks of ROWS queries x COLUMNS keys, and which one by one.
//
// A block that holds enough selected pairs is computed whole, under masks; the others' keys stay in lists.
#pragma once
#include <vector>
#include "attend.h"
#include "matrix.h"

constexpr int64_t ROWS = 32, COLUMNS = 32;

// Whether blocks are computed on the matrix unit.
inline bool on_matrix_unit() { return D % 32 == 0 && matrix_unit(); }

// Measured: from about this density on the whole block is faster.
inline int64_t enough() { return ROWS * COLUMNS / (on_matrix_unit() ? 7 : 3); }

struct Block {
  int32_t column;            // its first key is column * COLUMNS
  uint32_t chosen[COLUMNS];  // which queries selected each key
};
static_assert(ROWS <= 32);

struct Plan {
  int32_t *rest, *rest_counts;  // as the positions and counts of a selection, of the keys outside of blocks;
                                // `rest` is unused in strips without blocks
  Block* blocks;                // [batch x group, strip, most]: by column
  int32_t* block_counts;        // [batch x group, strip]
  int64_t most;                 // blocks that a strip, ROWS queries, can have
};

inline int64_t strips(const Attend& a) { return (a.time + ROWS - 1) / ROWS; }

inline int64_t most_blocks(int64_t keys, int64_t slots) {
  return std::min((keys + COLUMNS - 1) / COLUMNS, ROWS * slots / enough());
}

// One strip of ROWS queries.
inline void plan_strip(const Attend& a, const Plan& plan, int64_t row, int64_t strip) {
  const int64_t from = strip * ROWS, to = std::min(from + ROWS, a.time), columns = (a.keys + COLUMNS - 1) / COLUMNS;
  const int64_t needed = enough();
  const int32_t* positions = a.positions + row * a.time * a.slots;
  const int32_t* counts = a.counts + row * a.time;
  // Pairs of each column, counted in four places: neighbours, mostly of one column, need not wait for each other.
  std::vector<int32_t> pairs(4 * columns);
  for (int64_t t = from; t < to; t++) {
    const int32_t* keys = positions + t * a.slots;
    for (int64_t i = 0; i < counts[t]; i++) pairs[uint32_t(keys[i]) / COLUMNS * 4 + i % 4]++;
  }
  Block* blocks = plan.blocks + (row * strips(a) + strip) * plan.most;
  std::vector<int32_t> place(columns);  // of a column's block among the strip's, from 1
  int32_t n = 0;
  for (int64_t c = 0; c < columns; c++)
    if (pairs[4 * c] + pairs[4 * c + 1] + pairs[4 * c + 2] + pairs[4 * c + 3] >= needed) {
      blocks[n] = Block{int32_t(c), {}};
      place[c] = ++n;
    }
  plan.block_counts[row * strips(a) + strip] = n;
  for (int64_t t = from; t < to; t++) {
    int32_t& left = plan.rest_counts[row * a.time + t];
    left = counts[t];
    const int32_t* keys = positions + t * a.slots;
    if (n == 0) {
      find_bounds(a, row, t, keys, left);
      continue;
    }
    int32_t* rest = plan.rest + (row * a.time + t) * a.slots;
    Block outside{};  // takes what no block does, so that there is nothing to mispredict
    int64_t m = 0;
    for (int64_t i = 0; i < counts[t]; i++) {
      const uint32_t key = keys[i];
      const int32_t in = place[key / COLUMNS];
      Block& block = in ? blocks[in - 1] : outside;
      block.chosen[key % COLUMNS] |= 1u << (t - from);
      rest[m] = key;
      m += in == 0;
    }
    left = int32_t(m);
    find_bounds(a, row, t, rest, left);
  }
}
