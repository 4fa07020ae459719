// Products of 32 x 32 blocks of floats on the matrix unit of x86 processors (AMX), which multiplies bf16.
//
// A float is split into bf16 planes, x = high + middle + low, and the products of planes whose sum of ranks is small
// are added in float32, the smallest first: two planes leave a relative error of about 2^-16, three that of float32.
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

// Planes of 16 x 32 numbers. As a left factor: 16 rows, 32 deep. As a right factor: row r holds the depths 2 r and
// 2 r + 1 of 16 columns in turn. Two planes take the room of the floats they stand for.
template <int PLANES>
struct alignas(64) Split {
  uint16_t row[16][PLANES][32];
};

// The bf16 nearest to x and, in the upper half, to y; what it leaves of them stays in x and y.
inline __m512i take_plane(vf& x, vf& y) {
  const __m512i plane = (__m512i)_mm512_cvtne2ps_pbh((__m512)y, (__m512)x);
  x -= (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(plane)), 16);
  y -= (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(plane, 1)), 16);
  return plane;
}

inline __m512i in_turn(__m512i halves) {
  alignas(64) static constexpr uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                     8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(order), halves);
}

// A row of a left factor: depths 0 to 15 and 16 to 31.
template <int PLANES>
inline void put_left(Split<PLANES>& to, int64_t row, vf x, vf y) {
  for (int p = 0; p < PLANES; p++) _mm512_store_si512(to.row[row][p], take_plane(x, y));
}

// Depths 2 `pair` and 2 `pair` + 1 of a right factor.
template <int PLANES>
inline void put_right(Split<PLANES>& to, int64_t pair, vf x, vf y) {
  for (int p = 0; p < PLANES; p++) _mm512_store_si512(to.row[pair][p], in_turn(take_plane(x, y)));
}

// C (+)= A B: 2 x 2 tiles of floats at c, c + 16 and `pitch` x 16 below. The two row tiles of A are a_row apart, the
// two column tiles of B b_column; the `depth` tiles of each lie side by side.
template <int PLANES, bool SUM, int A, int B>
inline void product(float* c, int64_t pitch, const Split<A>* a, int64_t a_row, const Split<B>* b, int64_t b_column,
                    int depth) {
  float* const below = c + 16 * pitch;
  asm volatile("" ::: "memory");  // tiles are loaded behind the compiler's back
  if constexpr (SUM) {
    _tile_loadd(0, c, pitch * 4);
    _tile_loadd(1, c + 16, pitch * 4);
    _tile_loadd(2, below, pitch * 4);
    _tile_loadd(3, below + 16, pitch * 4);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int d = 0; d < depth; d++)
#pragma GCC unroll 3
    for (int rank = PLANES - 1; rank >= 0; rank--)
#pragma GCC unroll 3
      for (int p = 0; p <= rank; p++) {
        _tile_loadd(4, a[d].row[0][p], A * 64);
        _tile_loadd(5, a[a_row + d].row[0][p], A * 64);
        _tile_loadd(6, b[d].row[0][rank - p], B * 64);
        _tile_loadd(7, b[b_column + d].row[0][rank - p], B * 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
  _tile_stored(0, c, pitch * 4);
  _tile_stored(1, c + 16, pitch * 4);
  _tile_stored(2, below, pitch * 4);
  _tile_stored(3, below + 16, pitch * 4);
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
