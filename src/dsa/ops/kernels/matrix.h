// Products of 32 x 32 blocks of floats on the matrix unit of x86 processors (AMX), which multiplies bf16.
//
// A float is split into bf16 planes, x = high + middle + low, and the products of planes whose sum of ranks is small
// are added in float32: two planes leave a relative error of about 2^-16, three that of float32.
#pragma once
#include "vec.h"
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define MATRIX_UNIT 1
#include <sys/syscall.h>
#include <unistd.h>

// Whether the system lets this process use it. (Linux asks that it is requested once: ARCH_REQ_XCOMP_PERM, XTILEDATA.)
inline bool matrix_unit() {
  static const bool allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  return allowed;
}

// Sets up this thread's tiles, 16 rows of 64 bytes each, for as long as it lives.
struct MatrixUnit {
  MatrixUnit() {
    struct alignas(64) {
      uint8_t palette = 1, row = 0, unused[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    asm volatile("" : : "r"(&config) : "memory");  // some compilers think that only its first bytes are read
    _tile_loadconfig(&config);
  }
  ~MatrixUnit() { _tile_release(); }
};

// Planes of 16 x 32 numbers. As a left factor: 16 rows, 32 deep, two depths side by side. As a right factor: 16 columns,
// a row for every two depths. Which depths go together is free, as long as both factors agree (here those 16 apart, or
// neighbours). Two planes take the room of the floats they stand for.
template <int PLANES>
struct alignas(64) Split {
  uint16_t row[16][PLANES][32];
};

// The bf16 nearest to x as the upper half of each lane, whatever the lower; what it leaves stays in x.
inline __m512i take_upper(vf& x) {
  const vi rounded = (vi)x + 0x8000;
  x -= (vf)(rounded & int32_t(0xFFFF0000));
  return (__m512i)rounded;
}

// The upper halves of x and y in turn.
inline __m512i in_turn(__m512i x, __m512i y) {
  return _mm512_mask_mov_epi16(_mm512_srli_epi32(x, 16), 0xAAAAAAAA, y);
}

// A row of a factor: numbers, and those that lie beside them.
template <int PLANES>
inline void put(Split<PLANES>& to, int64_t row, vf x, vf y) {
  for (int p = 0; p < PLANES; p++) {
    const __m512i upper = take_upper(x);
    _mm512_store_si512(to.row[row][p], in_turn(upper, take_upper(y)));
  }
}

// Two tiles of floats side by side, at `c`, that are to be `base` + A B.
struct Sums {
  float* c;
  int64_t pitch;
  const float* base;
  int64_t base_pitch;
};

// Adds to tiles 2 WHICH and 2 WHICH + 1, step by step, the products of a tile of A and two of B, b_column apart; DEPTH
// tiles of each lie side by side.
template <int WHICH, int PLANES, int A, int B>
inline void steps(const Split<A>* a, const Split<B>* b, int64_t b_column, int from, int end) {
  // The planes of both factors, in an order in which only one of them changes from step to step.
  constexpr int COUNT = PLANES * (PLANES + 1) / 2;
  constexpr int A_PLANE[] = {PLANES - 1, PLANES - 2, PLANES - 2, 0, 0, 0}, B_PLANE[] = {0, 0, 1, 1, 0, 2};
#pragma GCC unroll 12
  for (int n = from; n < end; n++) {
    const int d = n / COUNT, i = n % COUNT;
    if (i == 0 || A_PLANE[i] != A_PLANE[i - 1]) {
      if constexpr (WHICH == 0) _tile_loadd(4, a[d].row[0][A_PLANE[i]], A * 64);
      else _tile_loadd(5, a[d].row[0][A_PLANE[i]], A * 64);
    }
    if (i == 0 || B_PLANE[i] != B_PLANE[i - 1]) {
      _tile_loadd(6, b[d].row[0][B_PLANE[i]], B * 64);
      _tile_loadd(7, b[b_column + d].row[0][B_PLANE[i]], B * 64);
    }
    if constexpr (WHICH == 0) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
    } else {
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
}

// x = base + A B and y = base + C D, of so many planes.
// The order is what keeps the unit busy: operands are loaded before sums, and the sums of x leave while y is made.
template <int X_PLANES, int Y_PLANES, int DEPTH, int A, int B, int C, int E>
inline void products(const Sums& x, const Split<A>* a, const Split<B>* b, int64_t b_column, const Sums& y,
                     const Split<C>* c, const Split<E>* d, int64_t d_column) {
  constexpr int X_STEPS = DEPTH * X_PLANES * (X_PLANES + 1) / 2, Y_STEPS = DEPTH * Y_PLANES * (Y_PLANES + 1) / 2;
  asm volatile("" ::: "memory");  // tiles are loaded behind the compiler's back
  _tile_loadd(0, x.base, x.base_pitch * 4);
  _tile_loadd(1, x.base + 16, x.base_pitch * 4);
  steps<0, X_PLANES>(a, b, b_column, 0, X_STEPS);
  _tile_loadd(2, y.base, y.base_pitch * 4);
  _tile_loadd(3, y.base + 16, y.base_pitch * 4);
  steps<1, Y_PLANES>(c, d, d_column, 0, 1);
  _tile_stored(0, x.c, x.pitch * 4);
  _tile_stored(1, x.c + 16, x.pitch * 4);
  steps<1, Y_PLANES>(c, d, d_column, 1, Y_STEPS);
  _tile_stored(2, y.c, y.pitch * 4);
  _tile_stored(3, y.c + 16, y.pitch * 4);
  asm volatile("" ::: "memory");
}

// 16 vectors of 16 floats, rows for columns.
inline void transpose(vf* x) {
  vf y[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    y[i] = (vf)_mm512_unpacklo_ps((__m512)x[i], (__m512)x[i + 1]);
    y[i + 1] = (vf)_mm512_unpackhi_ps((__m512)x[i], (__m512)x[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
      x[i + 2 * j] = (vf)_mm512_unpacklo_pd((__m512d)y[i + j], (__m512d)y[i + j + 2]);
      x[i + 2 * j + 1] = (vf)_mm512_unpackhi_pd((__m512d)y[i + j], (__m512d)y[i + j + 2]);
    }
  // x[4 i + j], lane 4 l + m: row 4 i + m, column 4 l + j.
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    const __m512 a = (__m512)x[j], b = (__m512)x[4 + j], c = (__m512)x[8 + j], d = (__m512)x[12 + j];
    const __m512 ab = _mm512_shuffle_f32x4(a, b, 0x44), AB = _mm512_shuffle_f32x4(a, b, 0xEE);
    const __m512 cd = _mm512_shuffle_f32x4(c, d, 0x44), CD = _mm512_shuffle_f32x4(c, d, 0xEE);
    y[j] = (vf)_mm512_shuffle_f32x4(ab, cd, 0x88);
    y[4 + j] = (vf)_mm512_shuffle_f32x4(ab, cd, 0xDD);
    y[8 + j] = (vf)_mm512_shuffle_f32x4(AB, CD, 0x88);
    y[12 + j] = (vf)_mm512_shuffle_f32x4(AB, CD, 0xDD);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) x[i] = y[i];
}

#else
inline bool matrix_unit() { return false; }
#endif
