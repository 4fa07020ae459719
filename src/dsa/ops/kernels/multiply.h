// Small dense products, for blocks of which so many pairs are wanted that it is cheaper to compute all of them.
#pragma once
#include "vec.h"

// C[m] (+)= sum over i < n of A[m, i] * B[i]: M rows of N vectors at a time stay in registers.
template <int M, int N>
inline void multiply_rows(float* c, int64_t c_row, const float* a, int64_t a_row, int64_t a_column, const float* b,
                          int64_t b_row, int64_t n, bool add) {
  vf sums[M][N];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 16
    for (int x = 0; x < N; x++) sums[m][x] = add ? load(c + m * c_row + x * W) : vf{};
  for (int64_t i = 0; i < n; i++) {
    vf row[N];
#pragma GCC unroll 16
    for (int x = 0; x < N; x++) row[x] = loaded(b + i * b_row + x * W);
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
      const float factor = a[m * a_row + i * a_column];
#pragma GCC unroll 16
      for (int x = 0; x < N; x++) sums[m][x] += factor * row[x];
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 16
    for (int x = 0; x < N; x++) store(c + m * c_row + x * W, sums[m][x]);
}

// The same for ROWS rows of WIDTH floats; `a_column` apart lie the factors of one row.
template <int ROWS, int WIDTH>
inline void multiply(float* c, int64_t c_row, const float* a, int64_t a_row, int64_t a_column, const float* b,
                     int64_t b_row, int64_t n, bool add) {
  constexpr int N = WIDTH / W, REGISTERS = W == 16 ? 16 : 8;
  constexpr int M = N > REGISTERS / 2 ? 1 : N > REGISTERS / 4 ? 2 : N > REGISTERS / 8 ? 4
                    : N > REGISTERS / 16 ? 8 : 16;  // the largest power of two with M * N <= REGISTERS
  static_assert(WIDTH % W == 0 && ROWS % M == 0);
  for (int m = 0; m < ROWS; m += M)
    multiply_rows<M, N>(c + m * c_row, c_row, a + m * a_row, a_row, a_column, b, b_row, n, add);
}
