// What the library costs a program that nobody moves: migrate_point() and a section that is held,
// against a loop that does nothing.
#include <benchmark/benchmark.h>
#include <libmigrate/migrate.h>

namespace {

void empty_loop(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::ClobberMemory();
  }
}

void point(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(migrate_point());
    benchmark::ClobberMemory();
  }
}

void hold_and_release(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(migrate_hold());
    benchmark::DoNotOptimize(migrate_release());
  }
}

BENCHMARK(empty_loop);
BENCHMARK(point);
BENCHMARK(hold_and_release);

}  // namespace

BENCHMARK_MAIN();
