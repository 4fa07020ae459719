// The k best of a list of candidates, exactly, ties to the earlier one.
#pragma once
#include "vec.h"

// Floats as integers in the same order, and back.
inline int32_t ordered(float x) {
  int32_t bits;
  memcpy(&bits, &x, 4);
  return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}
inline float unordered(int32_t bits) {
  bits ^= (bits >> 31) & 0x7FFFFFFF;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// How many of n values (padded with -infinity to whole vectors) reach the bound, or exceed it.
template <bool EXCEED = false>
inline int64_t count_from(const float* value, int64_t n, float bound) {
#if defined(__AVX512F__)
  int64_t count = 0;
  const __m512 b = _mm512_set1_ps(bound);
#pragma GCC unroll 4
  for (int64_t i = 0; i < n; i += W)
    count += __builtin_popcount(
        _mm512_cmp_ps_mask(_mm512_loadu_ps(value + i), b, EXCEED ? _CMP_GT_OQ : _CMP_GE_OQ));
  return count;
#else
  vi count = {};
  for (int64_t i = 0; i < n; i += W)
    count -= EXCEED ? (vi)(load(value + i) > bound) : (vi)(load(value + i) >= bound);
  int64_t total = 0;
  for (int i = 0; i < W; i++) total += count[i];
  return total;
#endif
}

struct Candidates {
  float* value;    // room for W more than there are
  int32_t* index;  // ascending
  int64_t n = 0;
  int64_t broken = 0;  // NaNs met so far; they are dropped

  // Drops all but the k best, in place and in order. Returns a bound that a later candidate must exceed or equal
  // to be among the best k.
  float keep(int64_t k) {
    drop_broken();
    if (n < k || n == 0) return -INF;
    if (k == 0) return n = 0, INF;
    const float lowest = std::numeric_limits<float>::lowest();
    vf least = splat(INF), most = splat(-INF);
    for (int64_t i = 0; i < W; i++) value[n + i] = value[n - 1];
    for (int64_t i = 0; i < n; i += W) {
      vf x = load(value + i);
      x = x < lowest ? splat(lowest) : x;
      store(value + i, x);
      least = x < least ? x : least;
      most = x > most ? x : most;
    }
    for (int64_t i = 0; i < W; i++) value[n + i] = -INF;
    int32_t low = ordered(-largest(-least)), high = ordered(largest(most)) + 1;
    // At least k candidates reach `low`, fewer than k reach `high`, or all of those at `low` stay.
    if (n > k) {
      int64_t reach_low = n, reach_high = 0;
      for (int round = 0; int64_t(high) - low > 1; round++) {
        int32_t middle = low + int32_t((int64_t(high) - low) / 2);
        if (round < 16) {  // a gap between two candidates is found sooner among the values, in proportion or by halves
          const float share = round % 2 ? 0.5f : float(reach_low - k) / float(reach_low - reach_high);
          const float between = (1 - share) * unordered(low) + share * unordered(high - 1);
          if (between > unordered(low) && between < unordered(high)) middle = ordered(between);
        }
        const int64_t reach = count_from(value, n, unordered(middle));
        if (reach == k) return filter(unordered(middle), 0, true);
        (reach > k ? low : high) = middle;
        (reach > k ? reach_low : reach_high) = reach;
      }
      const float bound = unordered(low);
      return filter(bound, k - count_from<true>(value, n, bound), false);
    }
    return std::nextafter(unordered(low), INF);
  }

 private:
  // Keep what exceeds the bound, and of what equals it the first `ties` (or all).
  float filter(float bound, int64_t ties, bool all) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i += W) {
      const vf x = load(value + i);
      uint32_t bits = not_below(x, bound);
      if (!all) {
        uint32_t equal = bits & not_below(-x, -bound);
        while (__builtin_popcount(equal) > ties) {
          const uint32_t last = 1u << (31 - __builtin_clz(equal));
          equal ^= last;
          bits ^= last;
        }
        ties -= __builtin_popcount(equal);
      }
      kept += compress(value + kept, index + kept, x, load(index + i), bits);
    }
    n = kept;
    return all ? bound : std::nextafter(bound, INF);
  }

  void drop_broken() {
    for (int64_t i = 0; i < W; i++) value[n + i] = 0;
    vi any = {};
    for (int64_t i = 0; i < n; i += W) any |= load(value + i) != load(value + i);
    bool met = false;
    for (int i = 0; i < W; i++) met |= any[i] != 0;
    if (!met) return;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
      if (value[i] != value[i]) continue;
      value[kept] = value[i];
      index[kept++] = index[i];
    }
    broken += n - kept;
    n = kept;
  }
};
