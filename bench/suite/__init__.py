"""The benchmark suite; scripts/bench runs it, docs/benchmarks.md tells of it."""
