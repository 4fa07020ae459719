// Scores of a few queries against a run of keys, for every Scorer. Compiled for one of them:
// SCORER 0: index features, HEADS x DIM; RELU.   1: attention probabilities, HEADS x DIM.   2: a hash.   3: recency,
// but the first keys before all others.   4: as 0 in integers of 8 bits, DIM a multiple of 4.   5: as 0 in bfloat16, DIM a
// multiple of 2; ROUND: dots, terms and sums are rounded to it too.
#pragma once
#include "vec.h"

constexpr int QUERIES = 4;                   // scored together at most, so that a key is loaded once for all of them
constexpr int VECTORS = W == 16 ? 4 : 2;     // of keys at a time, as registers allow
constexpr int64_t RUN = VECTORS * W;         // keys are scored in multiples of so many

// What a key takes: a float a dim; of integers four in the place of one, each 128 too large, and then their scale; of
// bfloat16 two.
#if SCORER == 4
constexpr int64_t KEY = DIM / 4 + 1;
#elif SCORER == 5
constexpr int64_t KEY = DIM / 2;
#elif SCORER <= 1
constexpr int64_t KEY = DIM;
#endif

struct Scorer {
  const float* queries;   // [batch, group, time, head, dim]; attention: scaled; integers: [..., KEY], four in the place
                          // of a float, and then as an integer of 32 bits -128 times their sum; bfloat16: [..., KEY]
  const float* weights;   // [batch, group, time, head] or null; attention: the log-sum-exp
  const float* keys;      // [batch, keygroup or kv_head, KEY, stride]
  int64_t stride;         // floats between dims
  int64_t batch_stride;
  int64_t share;          // groups that share their keys; attention: heads
  int64_t first_head;     // attention: of the group at hand
  uint32_t seed;          // hash: state after seed, layer and step; recency: how many keys come first
};

// Where a run of keys lies: element x of the packed keys is position x * step + origin.
struct Place {
  int64_t step, origin;
};

inline vu mix(vu x) {
  x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
  x = (x ^ (x >> 13)) * 0xC2B2AE35u;
  return x ^ (x >> 16);
}
inline uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
  x = (x ^ (x >> 13)) * 0xC2B2AE35u;
  return x ^ (x >> 16);
}

// out[i][j]: score of query i < QUERIES (row rows[i]; at position positions[i]) against packed key x + j, j < n, n a
// multiple of RUN.
template <int QUERIES>
inline void score(const Scorer& s, const int64_t* rows, const int64_t* positions, const float* keys, Place place,
                  int64_t x, int64_t n, float* out, int64_t pitch) {
#if SCORER <= 1
  for (int64_t j = 0; j < n; j += RUN) {
    for (int head = 0; head < HEADS; head++) {
      vf dot[QUERIES][VECTORS] = {};
#if SCORER == 0
      const float* key = keys + x + j;
#else
      const float* key = keys + (s.first_head + head) / s.share * DIM * s.stride + x + j;
#endif
#pragma GCC unroll 8
      for (int d = 0; d < DIM; d++, key += s.stride) {
        vf k[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) k[v] = load(key + v * W);
#pragma GCC unroll 4
        for (int i = 0; i < QUERIES; i++) {
          const float q = s.queries[(rows[i] * HEADS + head) * DIM + d];
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; v++) dot[i][v] += q * k[v];
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < QUERIES; i++) {
#if SCORER == 0
        const float weight = s.weights ? s.weights[rows[i] * HEADS + head] : 1.f;
#else
        const float logsumexp = s.weights[rows[i] * HEADS + head];
#endif
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
          float* to = out + i * pitch + j + v * W;
          vf term = dot[i][v];
#if SCORER == 1
          term = exponential(term - logsumexp);
#else
          if (RELU) term = term < 0.f ? vf{} : term;
          term *= weight;
#endif
          store(to, head ? load(to) + term : term);
        }
      }
    }
  }
#elif SCORER == 4
  for (int64_t j = 0; j < n; j += RUN) {
    for (int head = 0; head < HEADS; head++) {
      vi dot[QUERIES][VECTORS];
      const int32_t* query[QUERIES];
#pragma GCC unroll 4
      for (int i = 0; i < QUERIES; i++) {
        query[i] = (const int32_t*)s.queries + (rows[i] * HEADS + head) * KEY;
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) dot[i][v] = splat_int(query[i][KEY - 1]);
      }
      const float* key = keys + x + j;
#pragma GCC unroll 8
      for (int d = 0; d < KEY - 1; d++, key += s.stride) {
        vi k[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) k[v] = load((const int32_t*)key + v * W);
#pragma GCC unroll 4
        for (int i = 0; i < QUERIES; i++) {
          const vi q = splat_int(query[i][d]);
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; v++) dot[i][v] = add_products(dot[i][v], k[v], q);
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < QUERIES; i++) {
        const float weight = s.weights[rows[i] * HEADS + head];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
          float* to = out + i * pitch + j + v * W;
          vf term = __builtin_convertvector(dot[i][v], vf);
          if (RELU) term = term < 0.f ? vf{} : term;
          term = rounded(term * weight);
          if (head) term += load(to);
          store(to, head == HEADS - 1 ? term * load(key + v * W) : term);
        }
      }
    }
  }
#elif SCORER == 5
  constexpr auto kept = [](vf x) { return ROUND ? to_bfloat(x) : x; };
  for (int64_t j = 0; j < n; j += RUN) {
    for (int head = 0; head < HEADS; head++) {
      vf dot[QUERIES][VECTORS] = {};
      const float* key = keys + x + j;
#pragma GCC unroll 8
      for (int d = 0; d < KEY; d++, key += s.stride) {
        vi k[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) k[v] = load((const int32_t*)key + v * W);
#pragma GCC unroll 4
        for (int i = 0; i < QUERIES; i++) {
          const vi q = splat_int(((const int32_t*)s.queries)[(rows[i] * HEADS + head) * KEY + d]);
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; v++) dot[i][v] = add_products(dot[i][v], k[v], q);
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < QUERIES; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
          float* to = out + i * pitch + j + v * W;
          vf term = kept(dot[i][v]);
          if (RELU) term = term < 0.f ? vf{} : term;
          if (s.weights) term = kept(rounded(term * s.weights[rows[i] * HEADS + head]));
          store(to, head ? kept(load(to) + term) : term);
        }
      }
    }
  }
#else
  for (int64_t j = 0; j < n; j += W) {
    const vi position = int32_t((x + j) * place.step + place.origin) + lanes() * int32_t(place.step);
    for (int i = 0; i < QUERIES; i++) {
#if SCORER == 2
      const vu bits = mix(mix(uint32_t(positions[i]) + s.seed) ^ (vu)position) >> 8;
      store(out + i * pitch + j, __builtin_convertvector((vi)bits, vf));
#else
      const vi ranked = position < int32_t(s.seed) ? (1 << 24) - position : position;
      store(out + i * pitch + j, __builtin_convertvector(ranked, vf));
#endif
    }
  }
#endif
}
