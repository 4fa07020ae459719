// The keys each query keeps. Compiled for one Scorer (score.h).
//
// A few queries pass over their zones together. Scores stay in the first-level cache; those that reach a query's
// threshold are appended to its candidates, and when these are too many the exact k best of them set a new threshold.
// The first threshold is estimated from a sample; should it prove too high, the zone is read once more without.
// Where there are fewer queries than would keep all threads busy, each zone is cut into parts: the best of all are among
// the best of each.
#include "best.h"
#include "parallel.h"
#include "score.h"
#include "softmax.h"

struct Zone {
  const int64_t *start, *count, *keep;  // [batch, zone group, time]
  int64_t step, forced, unit;
  const float* keys;                    // packed for this step: every step-th key side by side
  int64_t stride, segment;              // floats between dims; packed keys of one remainder of position / step
};

struct Select {
  const Zone* zones;
  int64_t zone_count;
  Scorer scorer;
  int64_t batch, groups, scorer_groups, zone_groups, time, offset, slots;  // the latter groups are 1 or as many
  int64_t pool;                         // tokens whose best score is that of their unit
  int64_t capacity;                     // candidates per query
  int64_t forced_scores;                // with scores: whether forced keys are scored too
  int32_t* positions;                   // [batch, group, time, slot]
  int32_t* broken;                      // [batch, group, time]: scores that are NaN
  float* scores;                        // null, or as positions: scores of the kept keys, NaN where forced
  float *logsumexp, *entropy, *forced_logsumexp;  // with scores: [batch, group, time]
  int64_t threads;
  float* scratch;
  int64_t scratch_per_thread;
  int64_t parts, most;                  // of each zone, without scores; keys that a query takes from a zone
  float* part_scores;                   // [batch, group, time, zone, part, most]: what each part found
  int32_t* part_indices;
  int32_t* part_counts;                 // [batch, group, time, zone, part, 2]: how many, and scores that are NaN
};

namespace {

constexpr int64_t UNIT = 32;      // queries per unit of work
constexpr int64_t TEAM = 16;      // queries that pass over a zone together
constexpr int64_t CHUNK = 256;    // units scored before they are compared
constexpr int64_t SAMPLE = 1024;  // keys at most, an eighth of what there is

int64_t chunk_of(int64_t pool) { return pool == 1 ? CHUNK : 64; }

struct Query {
  int64_t t, x0, x1, keep;  // packed keys [x0, x1)
  float bound;
  Candidates found;
};

enum class Phase { WHOLE, PART, MERGE };  // of zones: all at once, or one part, or what all parts have found

class Worker {
 public:
  Worker(const Select& a, int64_t b, int64_t g, int64_t from, int64_t to, float* scratch, Phase phase, int64_t part)
      : a(a), b(b), g(g), from(from), to(to), phase(phase), part(part), scorer(a.scorer) {
    values = scratch;
    scratch += TEAM * (a.capacity + W);
    indices = (int32_t*)scratch;
    scratch += TEAM * (a.capacity + W);
    buffer = scratch;
    scratch += std::max<int64_t>(QUERIES * chunk_of(a.pool) * a.pool, QUERIES * RUN) + RUN;
    sample = scratch;
    scratch += TEAM * (SAMPLE + W);
    sample_index = (int32_t*)scratch;
    scratch += SAMPLE + W;
    kept = (int32_t*)scratch;
    scratch += UNIT * a.slots;
    kept_scores = scratch;
  }

  static int64_t scratch_size(int64_t capacity, int64_t pool, int64_t slots) {
    return 2 * TEAM * (capacity + W) + std::max<int64_t>(QUERIES * chunk_of(pool) * pool, QUERIES * RUN) + RUN +
           (TEAM + 1) * (SAMPLE + W) + 2 * UNIT * slots;
  }

  void run() {
    for (int64_t i = 0; i < to - from; i++) {
      used[i] = 0;
      broken[i] = 0;
      in_order[i] = true;
      all[i] = forced[i] = Softmax{};
    }
    for (int64_t z = 0; z < a.zone_count; z++) {
      const Zone& zone = a.zones[z];
      if (zone.forced && phase != Phase::PART) take_forced(zone);
      if (!zone.forced || (a.scores && a.forced_scores)) by_remainder(zone);
    }
    if (phase == Phase::PART) return;
    for (int64_t t = from; t < to; t++) finish(t);
  }

 private:
  const Select& a;
  const int64_t b, g, from, to;
  const Phase phase;
  const int64_t part;
  Scorer scorer;
  const float* keys = nullptr;
  float *values, *buffer, *sample, *kept_scores;
  int32_t *indices, *sample_index, *kept;
  int64_t used[UNIT], broken[UNIT];
  bool in_order[UNIT];
  Softmax all[UNIT], forced[UNIT];

  int64_t row(int64_t t) const { return (b * a.groups + g) * a.time + t; }
  int64_t scorer_group() const { return a.scorer_groups > 1 ? g : 0; }
  int64_t zone_row() const { return (b * a.zone_groups + (a.zone_groups > 1 ? g : 0)) * a.time; }

  void put(int64_t t, int64_t position, float score) {
    const int64_t i = t - from, at = i * a.slots + used[i]++;
    kept[at] = int32_t(position);
    kept_scores[at] = score;
    if (at > i * a.slots && kept[at - 1] > position) in_order[i] = false;
  }

  // All that a query found in a zone, which is in order.
  void put_found(const Query& q, Place place) {
    const int64_t i = q.t - from, at = i * a.slots + used[i], n = q.found.n;
    const int32_t* __restrict index = q.found.index;
    int32_t* __restrict to = kept + at;
    const uint32_t step = uint32_t(place.step), origin = uint32_t(place.origin);  // what overflows comes back
    for (int64_t j = 0; j < n; j++) to[j] = int32_t(uint32_t(index[j]) * step + origin);
    if (a.scores) memcpy(kept_scores + at, q.found.value, n * sizeof(float));
    if (n > 0 && used[i] > 0 && to[-1] > to[0]) in_order[i] = false;
    used[i] += n;
  }

  void take_forced(const Zone& zone) {
    for (int64_t t = from; t < to; t++) {
      const int64_t at = zone_row() + t, skipped = zone.count[at] - zone.keep[at];
      for (int64_t i = skipped; i < zone.count[at]; i++) put(t, zone.start[at] + i * zone.step, NAN);
    }
  }

  // Queries whose progressions share a remainder of position / step find their keys side by side.
  void by_remainder(const Zone& zone) {
    const int64_t* start = zone.start + zone_row();
    scorer.stride = zone.stride;
    keys = zone.keys + b * scorer.batch_stride * zone.stride;
#if SCORER == 0 || SCORER >= 4
    keys += scorer_group() / scorer.share * KEY * zone.stride;
#elif SCORER == 1
    scorer.first_head = scorer_group() * HEADS;
#endif
    int64_t order[UNIT];
    for (int64_t i = 0; i < to - from; i++) order[i] = from + i;
    auto remainder = [&](int64_t t) { return (start[t] % zone.step + zone.step) % zone.step; };
    if (zone.step > 1)
      std::stable_sort(order, order + (to - from), [&](int64_t x, int64_t y) { return remainder(x) < remainder(y); });
    for (int64_t i = 0; i < to - from;) {
      int64_t end = i;
      while (end < to - from && end < i + TEAM && remainder(order[end]) == remainder(order[i])) end++;
      Query team[TEAM];
      int64_t n = 0;
      for (; i < end; i++) {
        const int64_t t = order[i], at = zone_row() + t;
        const bool nothing_asked = zone.keep[at] == 0 && !a.scores;  // with scores, those of all keys are summed
        if (zone.count[at] == 0 || nothing_asked) continue;
        const int64_t x0 = remainder(t) * zone.segment + start[t] / zone.step;
        team[n] = Query{t, x0, x0 + zone.count[at], zone.keep[at], -INF,
                        {values + n * (a.capacity + W), indices + n * (a.capacity + W)}};
        if (phase == Phase::PART) {
          team[n].x0 = x0 + zone.count[at] * part / a.parts;
          team[n].x1 = x0 + zone.count[at] * (part + 1) / a.parts;
        }
        n++;
      }
      if (n == 0) continue;
      const int64_t r = remainder(team[0].t);
      const Place place{zone.step, r - r * zone.segment * zone.step};
      if (zone.forced) {
        pass<true>(team, n, place, &zone);
      } else {
        choose(zone, team, n, place);
      }
    }
  }

  void choose(const Zone& zone, Query* team, int64_t n, Place place) {
    if (phase == Phase::MERGE) gather(zone, team, n);
    else find(zone, team, n, place);
    for (int64_t i = 0; i < n; i++) {
      Query& q = team[i];
      q.found.keep(q.keep);
      if (phase == Phase::PART) {
        leave(zone, q);
        continue;
      }
      broken[q.t - from] += q.found.broken;
      if (zone.unit == 1) {
        put_found(q, place);
        continue;
      }
      for (int64_t j = 0; j < q.found.n; j++) {
        const int64_t unit = q.found.index[j] * place.step + place.origin;
        for (int64_t token = 0; token < zone.unit; token++) put(q.t, unit * zone.unit + token, q.found.value[j]);
      }
    }
  }

  int64_t part_row(const Zone& zone, int64_t t) const { return (row(t) * a.zone_count + (&zone - a.zones)) * a.parts; }

  // What a part found, for the merge.
  void leave(const Zone& zone, const Query& q) const {
    const int64_t at = part_row(zone, q.t) + part, n = q.found.n;
    memcpy(a.part_scores + at * a.most, q.found.value, n * sizeof(float));
    memcpy(a.part_indices + at * a.most, q.found.index, n * sizeof(int32_t));
    a.part_counts[2 * at] = int32_t(n);
    a.part_counts[2 * at + 1] = int32_t(q.found.broken);
  }

  // What all parts found, in order.
  void gather(const Zone& zone, Query* team, int64_t n) const {
    for (int64_t i = 0; i < n; i++) {
      Candidates& found = team[i].found;
      for (int64_t p = 0; p < a.parts; p++) {
        const int64_t at = part_row(zone, team[i].t) + p, more = a.part_counts[2 * at];
        memcpy(found.value + found.n, a.part_scores + at * a.most, more * sizeof(float));
        memcpy(found.index + found.n, a.part_indices + at * a.most, more * sizeof(int32_t));
        found.n += more;
        found.broken += a.part_counts[2 * at + 1];
      }
    }
  }

  void find(const Zone& zone, Query* team, int64_t n, Place place) {
    const bool guessed = guess(team, n, place);
    if (a.scores) pass<true>(team, n, place, &zone);
    else pass<false>(team, n, place, &zone);
    if (guessed) {
      Query again[TEAM];
      int64_t failed[TEAM], m = 0;
      for (int64_t i = 0; i < n; i++) {
        if (team[i].found.n >= team[i].keep) continue;
        failed[m] = i;
        again[m] = team[i];
        again[m].bound = -INF;
        again[m].found.n = again[m].found.broken = 0;
        m++;
      }
      if (m) pass<false>(again, m, place, &zone);
      for (int64_t i = 0; i < m; i++) team[failed[i]] = again[i];
    }
  }

  // A bound that a little more than `keep` keys of each query should reach, judged by a sample of what all can see.
  bool guess(Query* team, int64_t n, Place place) {
    int64_t x0 = 0, x1 = std::numeric_limits<int64_t>::max(), keep = 0;
    for (int64_t i = 0; i < n; i++) {
      x0 = std::max(x0, team[i].x0);
      x1 = std::min(x1, team[i].x1);
      keep = std::max(keep, team[i].keep);
    }
    const int64_t seen = x1 - x0;
    if (a.pool > 1 || seen < 3 * keep || seen < 16 * RUN) return false;
    const int64_t runs = std::clamp<int64_t>(seen / 8 / RUN, 4, SAMPLE / RUN), size = runs * RUN;
    for (int64_t i = 0; i < n; i += QUERIES) {
      for (int64_t r = 0; r < runs; r++) {
        const int64_t x = (x0 + (seen - RUN) * r / (runs - 1)) / W * W;
        evaluate(team, n, i, place, std::max(x, round_up(x0, W)), RUN, sample + i * (SAMPLE + W) + r * RUN, SAMPLE + W);
      }
    }
    for (int64_t i = 0; i < n; i++) {
      Candidates trial{sample + i * (SAMPLE + W), sample_index, size};
      const double expected = double(team[i].keep) * size / double(team[i].x1 - team[i].x0);
      trial.keep(std::min(size - 1, int64_t(expected + 3 * std::sqrt(expected)) + 3));
      float bound = INF;
      for (int64_t j = 0; j < trial.n; j++) bound = std::min(bound, trial.value[j]);
      team[i].bound = trial.n ? bound : -INF;
    }
    return true;
  }

  // Scores of the team's queries i ... i + QUERIES - 1 (the last one again past its end).
  void evaluate(Query* team, int64_t n, int64_t i, Place place, int64_t x, int64_t count, float* out, int64_t pitch) {
    int64_t rows[QUERIES], positions[QUERIES];
    for (int j = 0; j < QUERIES; j++) {
      const int64_t t = team[std::min(i + j, n - 1)].t;
      rows[j] = (b * a.scorer_groups + scorer_group()) * a.time + t;
      positions[j] = a.offset + t;
    }
    if (n - i == 1) score<1>(scorer, rows, positions, keys, place, x, count, out, pitch);
    else score<QUERIES>(scorer, rows, positions, keys, place, x, count, out, pitch);
  }

  // Every query of the team over its keys: candidates are collected, or with STATISTICS also the softmax of the row.
  template <bool STATISTICS>
  void pass(Query* team, int64_t n, Place place, const Zone* zone) {
    const int64_t chunk = chunk_of(a.pool), pitch = chunk * a.pool;
    int64_t begin = team[0].x0, end = team[0].x1;
    for (int64_t i = 1; i < n; i++) {
      begin = std::min(begin, team[i].x0);
      end = std::max(end, team[i].x1);
    }
    for (int64_t x = begin / W * W; x < end; x += chunk) {
      const int64_t units = std::min(chunk, end - x);
      for (int64_t i = 0; i < n; i += QUERIES) {
        evaluate(team, n, i, place, x * a.pool, round_up(units * a.pool, RUN), buffer, pitch);
        for (int64_t j = 0; j < QUERIES && i + j < n; j++) {
          Query& q = team[i + j];
          float* score = buffer + j * pitch;
          if (a.pool > 1) best_token(score, units);
          const int64_t first = std::max<int64_t>(q.x0 - x, 0), last = std::min(q.x1 - x, units);
          if (first >= last) continue;
          if (STATISTICS) {
            all[q.t - from].add(score + first, last - first);
            if (zone->forced) {
              const int64_t skipped = std::max(first, q.x1 - q.keep - x);
              if (skipped < last) forced[q.t - from].add(score + skipped, last - skipped);
              continue;
            }
          }
          collect(q, score, x, first, last);
        }
      }
    }
  }

  void best_token(float* score, int64_t units) const {
    for (int64_t u = 0; u < units; u++) {
      float best = score[u * a.pool];
      for (int64_t i = 1; i < a.pool; i++) {
        const float s = score[u * a.pool + i];
        best = s > best || s != s ? s : best;
      }
      score[u] = best;
    }
  }

  void collect(Query& q, const float* score, int64_t x, int64_t first, int64_t last) const {
    if (q.found.n + (last - first) > a.capacity) q.bound = std::max(q.bound, q.found.keep(q.keep));
    float* value = q.found.value + q.found.n;
    int32_t* index = q.found.index + q.found.n;
    vi place = int32_t(x) + lanes();
    const float bound = q.bound;
    for (int64_t j = first / W * W; j < last; j += W) {
      uint32_t bits = not_below(load(score + j), bound);
      if (j < first) bits &= ~0u << (first - j);
      if (last - j < W) bits &= (1u << (last - j)) - 1;
      const int more = compress(value, index, load(score + j), place + int32_t(j), bits);
      value += more;
      index += more;
    }
    q.found.n = value - q.found.value;
  }

  void finish(int64_t t) {
    const int64_t i = t - from, n = used[i];
    int32_t* position = kept + i * a.slots;
    float* score = kept_scores + i * a.slots;
    if (!in_order[i]) sort_pairs(position, score, n);
    int32_t* out = a.positions + row(t) * a.slots;
    memcpy(out, position, n * sizeof(int32_t));
    std::fill(out + n, out + a.slots, -1);
    a.broken[row(t)] = int32_t(broken[i]);
    if (!a.scores) return;
    memcpy(a.scores + row(t) * a.slots, score, n * sizeof(float));
    std::fill(a.scores + row(t) * a.slots + n, a.scores + (row(t) + 1) * a.slots, -INF);
    a.logsumexp[row(t)] = all[i].logsumexp();
    a.entropy[row(t)] = all[i].entropy();
    a.forced_logsumexp[row(t)] = forced[i].logsumexp();
  }

  static void sort_pairs(int32_t* position, float* score, int64_t n) {
    auto* pairs = new std::pair<int32_t, float>[n];
    for (int64_t i = 0; i < n; i++) pairs[i] = {position[i], score[i]};
    std::sort(pairs, pairs + n, [](auto& x, auto& y) { return x.first < y.first; });
    for (int64_t i = 0; i < n; i++) {
      position[i] = pairs[i].first;
      score[i] = pairs[i].second;
    }
    delete[] pairs;
  }
};

}  // namespace

extern "C" int64_t size_of(int64_t structure) { return sizes<Select, Zone, Scorer>(structure); }
extern "C" int64_t integer_unit() { return INTEGER_UNIT; }
extern "C" int64_t bfloat_unit() { return BFLOAT_UNIT; }
extern "C" int64_t select_scratch(int64_t capacity, int64_t pool, int64_t slots) {
  return round_up(Worker::scratch_size(capacity, pool, slots), 16);
}

extern "C" int64_t select_unit() { return UNIT; }
extern "C" int64_t select_chunk(int64_t pool) { return chunk_of(pool); }

// Returns how many scores are NaN.
extern "C" int64_t select_keys(const Select* args) {
  const Select& a = *args;
  const int64_t units = (a.time + UNIT - 1) / UNIT, rows = a.batch * a.groups;
  auto work = [&](int64_t unit, int thread, Phase phase, int64_t part) {
    const int64_t from = (units - 1 - unit % units) * UNIT, row = unit / units;  // the longest rows first
    Worker(a, row / a.groups, row % a.groups, from, std::min(from + UNIT, a.time),
           a.scratch + thread * a.scratch_per_thread, phase, part)
        .run();
  };
  if (a.parts > 1)
    parallel(int(a.threads), rows * units * a.parts, [&](int64_t unit, int thread) {
      work(unit / a.parts, thread, Phase::PART, unit % a.parts);
    });
  parallel(int(a.threads), rows * units, [&](int64_t unit, int thread) {
    work(unit, thread, a.parts > 1 ? Phase::MERGE : Phase::WHOLE, 0);
  });
  int64_t broken = 0;
  for (int64_t i = 0; i < a.batch * a.groups * a.time; i++) broken += a.broken[i];
  return broken;
}

// Keys [batch, keygroup, entry, dim] (strides in floats, dim dense) to [batch, keygroup, dim, stride]: those of one
// remainder of entry / step side by side, zeros after them.
extern "C" void pack_keys(const float* keys, int64_t batch_stride, int64_t group_stride, int64_t entry_stride,
                          int64_t batch, int64_t groups, int64_t entries, int64_t dim, int64_t step, int64_t segment,
                          int64_t stride, float* to, int64_t threads) {
  const int64_t chunk = 1024, chunks = (segment + chunk - 1) / chunk;
  parallel(int(threads), batch * groups * chunks, [&](int64_t unit, int) {
    const int64_t begin = unit % chunks * chunk, end = std::min(begin + chunk, segment), row = unit / chunks;
    const float* from = keys + row / groups * batch_stride + row % groups * group_stride;
    float* out = to + row * dim * stride;
    for (int64_t r = 0; r < step; r++)
      for (int64_t i = begin; i < end; i += 16)
        for (int64_t d = 0; d < dim; d++)
          for (int64_t j = i; j < std::min(i + 16, end); j++) {
            const int64_t entry = r + j * step;
            out[d * stride + r * segment + j] = entry < entries ? from[entry * entry_stride + d] : 0.f;
          }
    if (end == segment)
      for (int64_t d = 0; d < dim; d++)
        for (int64_t x = step * segment; x < stride; x++) out[d * stride + x] = 0.f;
  });
}
