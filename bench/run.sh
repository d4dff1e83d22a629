#!/usr/bin/env bash
# Rates of the kernels on this machine: dense products against the measured peak, then every op of the test harness.
# The CPU is printed first; figures mean nothing without it.
set -euo pipefail
cd "$(dirname "$0")/.."
grep -m1 "model name" /proc/cpuinfo
cmake --build build/release --target bench_gemm_bench >/dev/null
build/release/bench_gemm_bench
for test in build/release/tests/test_*_ops; do
    echo "== $(basename "$test")"
    "$test" --bench
done
