// Vectors of W floats as the target has them, through GCC/Clang vector extensions.
// -ffast-math is never on: a NaN stays a NaN.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef float vf_unaligned __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(4 * W), aligned(4), may_alias));

constexpr float INF = std::numeric_limits<float>::infinity();

// Bytes of the structures that a kernel is told with, by their number: Python's must be the same.
template <class... Structures>
int64_t sizes(int64_t number) {
  const int64_t all[] = {int64_t(sizeof(Structures))...};
  return all[number];
}

constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

inline vf load(const float* p) { return *(const vf_unaligned*)p; }
// Stays in a register: some compilers would load it again wherever it is used.
inline vf loaded(const float* p) {
  vf x = load(p);
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#elif defined(__AVX__)
  asm("" : "+x"(x));
#endif
  return x;
}
inline void store(float* p, vf x) { *(vf_unaligned*)p = x; }
inline vi load(const int32_t* p) { return *(const vi_unaligned*)p; }
inline void store(int32_t* p, vi x) { *(vi_unaligned*)p = x; }
inline vf splat(float x) { return x - vf{}; }
inline vi splat_int(int32_t x) { return x - vi{}; }
// A product that is rounded before it is added to anything.
inline vf rounded(vf x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#endif
  return x;
}
// Whether the processor multiplies integers of 8 bits four at a time.
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
constexpr bool INTEGER_UNIT = true;
// x + the four products of each lane's bytes, unsigned by signed.
inline vi add_products(vi x, vi bytes, vi signed_bytes) {
  return (vi)_mm512_dpbusd_epi32((__m512i)x, (__m512i)bytes, (__m512i)signed_bytes);
}
#else
constexpr bool INTEGER_UNIT = false;
#endif
// Whether it multiplies numbers of the format bfloat16 two at a time, summed in float32.
#if defined(__AVX512F__) && defined(__AVX512BF16__)
constexpr bool BFLOAT_UNIT = true;
// x + the two products of each lane's halves.
inline vf add_products(vf x, vi pairs, vi others) {
  return (vf)_mm512_dpbf16_ps((__m512)x, (__m512bh)pairs, (__m512bh)others);
}
#else
constexpr bool BFLOAT_UNIT = false;
#endif
// The nearest bfloat16, of two equally near the even one.
inline vf to_bfloat(vf x) {
  const vu bits = (vu)x;
  const vf near = (vf)((bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u);
  return x == x ? near : x;
}
inline vf larger(vf a, vf b) { return a > b ? a : b; }

inline vi lanes() {
  vi x;
  for (int i = 0; i < W; i++) x[i] = i;
  return x;
}

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

template <class F>
inline float fold(vf x, F f) {
#if defined(__AVX512F__)
  __m256 y = f(_mm512_castps512_ps256((__m512)x), (__m256)_mm512_extractf64x4_pd((__m512d)x, 1));
#elif defined(__AVX__)
  __m256 y = (__m256)x;
#endif
#if defined(__AVX__)
  __m128 z = f(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  z = f(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(f(z, _mm_shuffle_ps(z, z, 1)));
#else
  const vf y = f(x, SHUFFLE(x, x, 2, 3, 0, 1));
  return f(y, SHUFFLE(y, y, 1, 0, 3, 2))[0];
#endif
}
inline float sum(vf x) { return fold(x, [](auto a, auto b) { return a + b; }); }
inline float largest(vf x) { return fold(x, [](auto a, auto b) { return a > b ? a : b; }); }


// The sums of W vectors as the lanes of one: halves of two vectors are added at each level, as in a transpose.
inline vf sums(vf* a) {
#if defined(__AVX512F__)
  for (int i = 0; i < 8; i++)
    a[i] = SHUFFLE(a[i], a[i + 8], 0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31) +
           SHUFFLE(a[i], a[i + 8], 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23);
  for (int i = 0; i < 4; i++)
    a[i] = SHUFFLE(a[i], a[i + 4], 0, 1, 2, 3, 20, 21, 22, 23, 8, 9, 10, 11, 28, 29, 30, 31) +
           SHUFFLE(a[i], a[i + 4], 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
  for (int i = 0; i < 2; i++)
    a[i] = SHUFFLE(a[i], a[i + 2], 0, 1, 18, 19, 4, 5, 22, 23, 8, 9, 26, 27, 12, 13, 30, 31) +
           SHUFFLE(a[i], a[i + 2], 2, 3, 16, 17, 6, 7, 20, 21, 10, 11, 24, 25, 14, 15, 28, 29);
  return SHUFFLE(a[0], a[1], 0, 17, 2, 19, 4, 21, 6, 23, 8, 25, 10, 27, 12, 29, 14, 31) +
         SHUFFLE(a[0], a[1], 1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
#elif defined(__AVX__)
  for (int i = 0; i < 4; i++)
    a[i] = SHUFFLE(a[i], a[i + 4], 0, 1, 2, 3, 12, 13, 14, 15) + SHUFFLE(a[i], a[i + 4], 4, 5, 6, 7, 8, 9, 10, 11);
  for (int i = 0; i < 2; i++)
    a[i] = SHUFFLE(a[i], a[i + 2], 0, 1, 10, 11, 4, 5, 14, 15) + SHUFFLE(a[i], a[i + 2], 2, 3, 8, 9, 6, 7, 12, 13);
  return SHUFFLE(a[0], a[1], 0, 9, 2, 11, 4, 13, 6, 15) + SHUFFLE(a[0], a[1], 1, 8, 3, 10, 5, 12, 7, 14);
#else
  for (int i = 0; i < 2; i++) a[i] = SHUFFLE(a[i], a[i + 2], 0, 1, 6, 7) + SHUFFLE(a[i], a[i + 2], 2, 3, 4, 5);
  return SHUFFLE(a[0], a[1], 0, 5, 2, 7) + SHUFFLE(a[0], a[1], 1, 4, 3, 6);
#endif
}

// e^x to 2 ulp; 0 below -87.3, infinity above 88.7, NaN for NaN.
inline vf exponential(vf x) {
  const vf y = x > 89.f ? splat(89.f) : x;
  const vf shifted = y * 1.44269504f + 12582912.f;  // the low bits now hold round(x / ln 2)
  const vf n = shifted - 12582912.f;
  const vf r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
  vf p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.3f), _CMP_NLT_UQ), (__m512)p,
                                    (__m512)n);
#else
  const vi power = ((vi)shifted - 0x4B400000 + 127) << 23;
  return x < -87.3f ? vf{} : p * (vf)power;
#endif
}

// ln x to 2 ulp for normal positive x; -infinity at and below the smallest normal.
inline vf logarithm(vf x) {
  vi exponent = (((vi)x >> 23) & 0xFF) - 126;
  vf m = (vf)(((vi)x & 0x007FFFFF) | 0x3F000000);  // [0.5, 1)
  const vi low = m < 0.70710678f;
  exponent += low;
  m = low ? m + m - 1.f : m - 1.f;
  const vf e = __builtin_convertvector(exponent, vf);
  vf p = splat(7.0376836292e-2f);
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const vf square = m * m;
  vf y = p * m * square + e * -2.12194440e-4f - 0.5f * square;
  y = m + y + e * 0.693359375f;
  return x < 1.17549435e-38f ? splat(-INF) : y;
}

// Bit i: lane i of x is not below the bound. A NaN counts as not below, so that it comes to light.
inline uint32_t not_below(vf x, float bound) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(bound), _CMP_NLT_UQ);
#elif defined(__AVX__)
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_set1_ps(bound), _CMP_NLT_UQ));
#else
  uint32_t bits = 0;
  for (int i = 0; i < W; i++) bits |= uint32_t(!(x[i] < bound)) << i;
  return bits;
#endif
}

// Write the lanes in `bits` next to each other; may write W lanes. Returns how many count.
inline int compress(float* to, int32_t* to_index, vf x, vi index, uint32_t bits) {
#if defined(__AVX512F__)
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(bits, (__m512)x));
  _mm512_storeu_si512(to_index, _mm512_maskz_compress_epi32(bits, (__m512i)index));
  return __builtin_popcount(bits);
#else
  float value[W];
  int32_t place[W];
  store(value, x);
  store(place, index);
  int n = 0;
  for (; bits; bits &= bits - 1, n++) {
    const int lane = __builtin_ctz(bits);
    to[n] = value[lane];
    to_index[n] = place[lane];
  }
  return n;
#endif
}

// A row of D floats in registers, padded with zeros to whole vectors.
template <int D>
struct Row {
  static constexpr int N = (D + W - 1) / W;
  vf x[N];

  static Row read(const float* p) {
    Row row;
    if constexpr (D % W == 0) {
      for (int i = 0; i < N; i++) row.x[i] = load(p + i * W);
    } else {
      float padded[N * W] = {};
      memcpy(padded, p, D * sizeof(float));
      for (int i = 0; i < N; i++) row.x[i] = load(padded + i * W);
    }
    return row;
  }
  // From memory that is padded too.
  static Row read_padded(const float* p) {
    Row row;
    for (int i = 0; i < N; i++) row.x[i] = load(p + i * W);
    return row;
  }
  void write(float* p) const {
    if constexpr (D % W == 0) {
      for (int i = 0; i < N; i++) store(p + i * W, x[i]);
    } else {
      float padded[N * W];
      for (int i = 0; i < N; i++) store(padded + i * W, x[i]);
      memcpy(p, padded, D * sizeof(float));
    }
  }
};

inline void fetch(const float* p, int64_t floats) {
  for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(p + i);
}
