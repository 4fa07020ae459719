// The gradients of ROWS queries, and of the keys of a whole block by them.
#pragma once
#include "multiply.h"
#include "plan.h"

// One record per key: what a query needs of it lies in one page, and no two of these rows have equal low address bits.
constexpr int64_t BACKWARD = 4 * P;  // k, v, dk, dv
constexpr int64_t STRIP = ROWS * P;  // a row of each of ROWS queries

// What the gradients of ROWS queries need.
struct Slopes {
  float q[STRIP], grad[STRIP], dq[STRIP], logsumexp[ROWS], delta[ROWS];
};

// The queries, of W beginning with the x-th, whose bits are set.
inline vi those(uint32_t bits, int64_t x) { return ((splat_int(int32_t(bits >> x)) >> lanes()) & 1) != 0; }

// Blocks on vectors.
struct VectorBlocks {
  struct Column {};  // prepared keys: none are
  float q_turned[STRIP], grad_turned[STRIP];

  void prepare(const float*, Column*) const {}

  void begin(const Slopes& s) {
    turn(s.q, q_turned);
    turn(s.grad, grad_turned);
  }

  // `first`: the record of the block's first key.
  void add(const Block& block, float* first, const Column*, Slopes& s) const {
    alignas(64) float p[COLUMNS * ROWS], ds[COLUMNS * ROWS];
    multiply<COLUMNS, ROWS>(p, ROWS, first, BACKWARD, 1, q_turned, ROWS, D, false);
    multiply<COLUMNS, ROWS>(ds, ROWS, first + P, BACKWARD, 1, grad_turned, ROWS, D, false);
    for (int64_t i = 0; i < ROWS; i += W) {
      const vf logsumexp = load(s.logsumexp + i), delta = load(s.delta + i);
      for (int64_t c = 0; c < COLUMNS; c++) {
        float *probability = p + c * ROWS + i, *slope = ds + c * ROWS + i;
        const vi chosen = those(block.chosen[c], i);
        const vf e = exponential(load(probability) - logsumexp);
        store(slope, chosen ? e * (load(slope) - delta) : vf{});
        store(probability, chosen ? e : vf{});
      }
    }
    multiply<ROWS, P>(s.dq, P, ds, 1, ROWS, first, BACKWARD, COLUMNS, true);
    multiply<COLUMNS, P>(first + 2 * P, BACKWARD, ds, ROWS, 1, s.q, P, ROWS, true);
    multiply<COLUMNS, P>(first + 3 * P, BACKWARD, p, ROWS, 1, s.grad, P, ROWS, true);
  }

  void end(Slopes&) const {}

 private:
  // [ROWS, P] as [P, ROWS].
  static void turn(const float* from, float* to) {
    for (int64_t i = 0; i < ROWS; i++)
      for (int64_t d = 0; d < D; d++) to[d * ROWS + i] = from[i * P + d];
  }
};

#if MATRIX_UNIT && HEAD_DIM % 32 == 0
// Blocks on the matrix unit. Probabilities are exact to float32; what is linear in them to 2^-16.
struct MatrixBlocks {
  static constexpr int DEEP = D / 32, WIDE = D / 16;

  struct Column {
    Split<3> k[2][DEEP];      // left factors: keys x dims
    Split<2> v[2][DEEP];
    Split<2> k_turned[WIDE];  // left factors: dims x keys
  };

  Split<3> q[2][DEEP];                 // right factors: dims x queries
  Split<2> grad[2][DEEP];
  Split<2> q_rows[WIDE], grad_rows[WIDE];  // right factors: queries x dims
  float dq_turned[D * ROWS];
  MatrixUnit unit;

  // `first`: the record of the first key.
  void prepare(const float* first, Column* to) const {
    for (int64_t s = 0; s < COLUMNS; s++)
      for (int64_t d = 0; d < DEEP; d++) {
        const float* key = first + s * BACKWARD + d * 32;
        put_left(to->k[s / 16][d], s % 16, load(key), load(key + 16));
        put_left(to->v[s / 16][d], s % 16, load(key + P), load(key + P + 16));
      }
    for (int64_t w = 0; w < WIDE; w++) {
      vf low[16], high[16];
      for (int64_t s = 0; s < 16; s++) {
        low[s] = load(first + s * BACKWARD + w * 16);
        high[s] = load(first + (s + 16) * BACKWARD + w * 16);
      }
      transpose(low);
      transpose(high);
      for (int64_t d = 0; d < 16; d++) put_left(to->k_turned[w], d, low[d], high[d]);
    }
  }

  void begin(const Slopes& s) {
    turn(s.q, q);
    turn(s.grad, grad);
    for (int64_t w = 0; w < WIDE; w++)
      for (int64_t pair = 0; pair < 16; pair++) {
        const float *x = s.q + 2 * pair * P + w * 16, *y = s.grad + 2 * pair * P + w * 16;
        put_right(q_rows[w], pair, load(x), load(x + P));
        put_right(grad_rows[w], pair, load(y), load(y + P));
      }
    memset(dq_turned, 0, sizeof dq_turned);
  }

  void add(const Block& block, float* first, const Column* column, const Slopes& s) {
    alignas(64) float p[COLUMNS * ROWS], ds[COLUMNS * ROWS];  // in the end as left factors: keys x queries
    Split<2> ds_right[2];                                     // right factors: keys x queries
    product<3, false>(p, ROWS, column->k[0], DEEP, q[0], DEEP, DEEP);
    product<2, false>(ds, ROWS, column->v[0], DEEP, grad[0], DEEP, DEEP);
    for (int64_t half = 0; half < ROWS; half += 16) {
      const vf logsumexp = load(s.logsumexp + half), delta = load(s.delta + half);
      for (int64_t c = 0; c < COLUMNS; c++) {
        float *probability = p + c * ROWS + half, *slope = ds + c * ROWS + half;
        const __mmask16 chosen = block.chosen[c] >> half;
        const vf e = exponential(load(probability) - logsumexp);
        _mm512_store_ps(slope, _mm512_maskz_mov_ps(chosen, (__m512)(e * (load(slope) - delta))));
        _mm512_store_ps(probability, _mm512_maskz_mov_ps(chosen, (__m512)e));
      }
    }
    for (int64_t pair = 0; pair < COLUMNS / 2; pair++) {
      float *x_rows = p + 2 * pair * ROWS, *y_rows = ds + 2 * pair * ROWS;
      vf x[4] = {load(x_rows), load(x_rows + ROWS), load(x_rows + 16), load(x_rows + ROWS + 16)};
      vf y[4] = {load(y_rows), load(y_rows + ROWS), load(y_rows + 16), load(y_rows + ROWS + 16)};
      for (int plane = 0; plane < 2; plane++) {
        put_rows(x_rows + plane * 16, take_plane(x[0], x[1]), take_plane(x[2], x[3]));
        const __m512i low = take_plane(y[0], y[1]), high = take_plane(y[2], y[3]);
        put_rows(y_rows + plane * 16, low, high);
        _mm512_store_si512(ds_right[0].row[pair][plane], in_turn(low));
        _mm512_store_si512(ds_right[1].row[pair][plane], in_turn(high));
      }
    }
    for (int w = 0; w < WIDE; w += 2) {
      float *dk = first + 2 * P + w * 16, *dv = dk + P;
      product<2, true>(dq_turned + w * 16 * ROWS, ROWS, column->k_turned + w, 1, ds_right, 1, 1);
      product<2, true>(dk, BACKWARD, (const Split<2>*)ds, 1, q_rows + w, 1, 1);
      product<2, true>(dv, BACKWARD, (const Split<2>*)p, 1, grad_rows + w, 1, 1);
    }
  }

  void end(Slopes& s) const {
    for (int64_t half = 0; half < 2; half++)
      for (int64_t w = 0; w < WIDE; w++) {
        vf x[16];
        for (int64_t d = 0; d < 16; d++) x[d] = load(dq_turned + (w * 16 + d) * ROWS + half * 16);
        transpose(x);
        for (int64_t i = 0; i < 16; i++) {
          float* to = s.dq + (half * 16 + i) * P + w * 16;
          store(to, load(to) + x[i]);
        }
      }
  }

 private:
  // Two rows of a left factor from vectors that hold the first half of both, and the second.
  static void put_rows(float* to, __m512i low, __m512i high) {
    _mm512_store_si512(to, _mm512_shuffle_i64x2(low, high, 0x44));
    _mm512_store_si512(to + ROWS, _mm512_shuffle_i64x2(low, high, 0xEE));
  }

  // Rows of queries as right factors, dims x queries.
  template <int PLANES>
  static void turn(const float* from, Split<PLANES> (*to)[DEEP]) {
    for (int64_t half = 0; half < 2; half++)
      for (int64_t w = 0; w < WIDE; w++) {
        vf x[16];
        for (int64_t i = 0; i < 16; i++) x[i] = load(from + (half * 16 + i) * P + w * 16);
        transpose(x);
        for (int64_t d = 0; d < 16; d += 2) put_right(to[half][w / 2], w % 2 * 8 + d / 2, x[d], x[d + 1]);
      }
  }
};
#else
using MatrixBlocks = VectorBlocks;
#endif
