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
  static constexpr float LOG2_E = 1.44269504f;

  struct Column {
    Split<3> k[2][DEEP];      // left factors: keys x dims
    Split<2> v[2][DEEP];
    Split<2> k_turned[WIDE];  // left factors: dims x keys
  };

  Split<3> q[2][DEEP];                     // right factors: dims x queries, times log2 e
  Split<2> grad[2][DEEP];
  Split<2> q_rows[WIDE], grad_rows[WIDE];  // right factors: queries x dims
  float dq_turned[D * ROWS];
  float minus_logsumexp[ROWS], minus_delta[ROWS];  // the former times log2 e
  MatrixUnit unit;

  // `first`: the record of the first key.
  void prepare(const float* first, Column* to) const {
    for (int64_t s = 0; s < COLUMNS; s++)
      for (int64_t d = 0; d < DEEP; d++) {
        const float* key = first + s * BACKWARD + d * 32;
        put(to->k[s / 16][d], s % 16, load(key), load(key + 16));
        put(to->v[s / 16][d], s % 16, load(key + P), load(key + P + 16));
      }
    for (int64_t w = 0; w < WIDE; w++) {
      vf low[16], high[16];
      for (int64_t s = 0; s < 16; s++) {
        low[s] = load(first + 2 * s * BACKWARD + w * 16);
        high[s] = load(first + (2 * s + 1) * BACKWARD + w * 16);
      }
      transpose(low);
      transpose(high);
      for (int64_t d = 0; d < 16; d++) put(to->k_turned[w], d, low[d], high[d]);
    }
  }

  void begin(const Slopes& s) {
    turn(s.q, LOG2_E, q);
    turn(s.grad, 1.f, grad);
    for (int64_t w = 0; w < WIDE; w++)
      for (int64_t i = 0; i < 16; i++) {
        const float *x = s.q + i * P + w * 16, *y = s.grad + i * P + w * 16;
        put(q_rows[w], i, load(x), load(x + 16 * P));
        put(grad_rows[w], i, load(y), load(y + 16 * P));
      }
    for (int64_t i = 0; i < ROWS; i += W) {
      store(minus_logsumexp + i, plain_nan(load(s.logsumexp + i)) * -LOG2_E);
      store(minus_delta + i, -plain_nan(load(s.delta + i)));
    }
    memset(dq_turned, 0, sizeof dq_turned);
  }

  void add(const Block& block, float* first, const Column* column, const Slopes&) {
    alignas(64) float p[COLUMNS * ROWS], ds[COLUMNS * ROWS];  // in the end as left factors: keys x queries
    Split<2> ds_right[2];                                     // right factors: keys x queries
    for (int half = 0; half < 2; half++) {
      const Sums logits{p + half * 16 * ROWS, ROWS, minus_logsumexp, 0};
      const Sums slopes{ds + half * 16 * ROWS, ROWS, minus_delta, 0};
      products<3, 2, DEEP>(logits, column->k[half], q[0], DEEP, slopes, column->v[half], grad[0], DEEP);
      factors(block, half, first, column, p, ds, ds_right);
      for (int w = 0; w < WIDE; w += 2) {
        float *const dk = first + half * 16 * BACKWARD + 2 * P + w * 16, *const dv = dk + P;
        products<2, 2, 1>({dk, BACKWARD, dk, BACKWARD}, (Split<2>*)ds + half, q_rows + w, 1,
                          {dv, BACKWARD, dv, BACKWARD}, (Split<2>*)p + half, grad_rows + w, 1);
      }
    }
    for (int w = 0; w < WIDE; w += 2) {
      float *const dq = dq_turned + w * 16 * ROWS, *const below = dq + 16 * ROWS;
      products<2, 2, 1>({dq, ROWS, dq, ROWS}, column->k_turned + w, ds_right, 1, {below, ROWS, below, ROWS},
                        column->k_turned + w + 1, ds_right, 1);
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
  // A NaN that `take_upper` keeps, whatever its bits.
  static vf plain_nan(vf x) { return x == x ? x : splat(std::nanf("")); }

  // Probabilities and slopes of half of the keys from the exponents of 2 in p and the factors in ds. Fetches what the
  // products that follow read.
  static void factors(const Block& block, int half, const float* first, const Column* column, float* p, float* ds,
                      Split<2>* ds_right) {
    for (int64_t pair = half * 8; pair < half * 8 + 8; pair++) {
      fetch(first + 2 * pair * BACKWARD + 2 * P, 2 * P);
      fetch(first + (2 * pair + 1) * BACKWARD + 2 * P, 2 * P);
      fetch((const float*)column->k_turned + pair * 64, 64);
      __m512i slopes[2][2][2];  // plane, which key, first or second queries
      for (int key = 0; key < 2; key++) {
        float *const p_row = p + (2 * pair + key) * ROWS, *const ds_row = ds + (2 * pair + key) * ROWS;
        const uint32_t chosen = block.chosen[2 * pair + key];
        vf probability[2], slope[2];
        for (int side = 0; side < 2; side++) {
          const __mmask16 some = chosen >> side * 16;
          probability[side] = power_of_two(load(p_row + side * 16), some);
          slope[side] = (vf)_mm512_maskz_mul_ps(some, (__m512)probability[side], _mm512_load_ps(ds_row + side * 16));
        }
        for (int plane = 0; plane < 2; plane++) {
          __m512i* const upper = slopes[plane][key];
          for (int side = 0; side < 2; side++) upper[side] = take_upper(slope[side]);
          const __m512i low = take_upper(probability[0]), high = take_upper(probability[1]);
          _mm512_store_si512(p_row + plane * 16, in_turn(low, high));
          _mm512_store_si512(ds_row + plane * 16, in_turn(upper[0], upper[1]));
        }
      }
      for (int plane = 0; plane < 2; plane++)
        for (int side = 0; side < 2; side++)
          _mm512_store_si512(ds_right[side].row[pair][plane], in_turn(slopes[plane][0][side], slopes[plane][1][side]));
    }
  }

  // 2^x to 2e-7 where chosen, else 0. (The best polynomial of its degree from -1/2 to 1/2.)
  static vf power_of_two(vf x, __mmask16 chosen) {
    const vf n = (x + 12582912.f) - 12582912.f, r = x - n;  // the nearest whole number
    vf p = splat(1.3276471992e-3f);
    p = p * r + 9.6755413344e-3f;
    p = p * r + 5.5507132735e-2f;
    p = p * r + 2.4022119724e-1f;
    p = p * r + 6.9314696706e-1f;
    p = p * r + 1.0000000717f;
    return (vf)_mm512_maskz_scalef_ps(chosen, (__m512)p, (__m512)n);
  }

  // Rows of queries as right factors, dims x queries.
  template <int PLANES>
  static void turn(const float* from, float scale, Split<PLANES> (*to)[DEEP]) {
    for (int64_t half = 0; half < 2; half++)
      for (int64_t deep = 0; deep < DEEP; deep++) {
        vf low[16], high[16];
        for (int64_t i = 0; i < 16; i++) {
          const float* row = from + (half * 16 + i) * P + deep * 32;
          low[i] = load(row) * scale;
          high[i] = load(row + 16) * scale;
        }
        transpose(low);
        transpose(high);
        for (int64_t d = 0; d < 16; d++) put(to[half][deep], d, low[d], high[d]);
      }
  }
};
#else
using MatrixBlocks = VectorBlocks;
#endif
