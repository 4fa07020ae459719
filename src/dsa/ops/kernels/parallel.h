// Units of work shared out among threads. No result may depend on which thread did what.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#if defined(_OPENMP)
extern "C" int omp_get_thread_num(void);
#else
#include <thread>
#include <vector>
#endif

// Calls body(unit, thread) for every unit. With OpenMP the threads are torch's own: two pools would fight for cores.
template <class Body>
void parallel(int threads, int64_t units, Body body) {
  std::atomic<int64_t> next{0};
  const int used = int(std::min<int64_t>(threads, units));
  auto work = [&](int thread) {
    for (int64_t unit; (unit = next.fetch_add(1, std::memory_order_relaxed)) < units;) body(unit, thread);
  };
  if (used <= 1) return work(0);
#if defined(_OPENMP)
#pragma omp parallel num_threads(used)
  work(omp_get_thread_num());
#else
  std::vector<std::thread> others;
  for (int i = 1; i < used; i++) others.emplace_back(work, i);
  work(0);
  for (auto& thread : others) thread.join();
#endif
}
