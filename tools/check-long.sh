#!/usr/bin/env bash
# What takes hours and is run before an issue is called done: every instruction set, hundreds of kills, every fault
# point, memory at a 135M shape, TSan, valgrind, ten minutes of each fuzzer. Prints a summary; logs stand in
# build/check-long.
#
#   tools/check-long.sh                  everything
#   tools/check-long.sh kill memory      these parts: isa kill faults memory tsan valgrind fuzz
#   KILLS=60 FUZZ_SECONDS=600 JOBS=2     how much of it; FUZZ_SECONDS=0 leaves the fuzzers out
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD logs=$PWD/build/check-long
kills=${KILLS:-60} fuzz_seconds=${FUZZ_SECONDS:-600} jobs=${JOBS:-2}
mkdir -p "$logs"
results=() failures=0
[ $# -gt 0 ] || set -- isa kill faults memory tsan valgrind fuzz

part() { # name, command...: runs it, keeps its output, notes how it ended
    local name=$1 start code word line
    shift
    printf '== %s\n' "$name" >&2
    start=$(date +%s)
    "$@" >"$logs/$name.log" 2>&1
    code=$?
    case $code in 0) word=passed ;; 77) word=skipped ;; *) word=FAILED failures=$((failures + 1)) ;; esac
    line=$(grep -v '^[[:space:]]*$' "$logs/$name.log" | tail -n 1 | cut -c1-110)
    results+=("$(printf '%-8s %-22s %5d s  %s' $word "$name" $(($(date +%s) - start)) "$line")")
    [ $code = 0 ] || [ $code = 77 ] || tail -n 15 "$logs/$name.log" >&2
}

release() { cmake --preset release -Wno-dev && cmake --build build/release; }
script() { # of tests/, run as ctest runs it
    PEFT=$root/build/release/peft-toolkit MAKE_MODEL=$root/build/release/make_model SOURCE_DIR=$root \
        SHARED_DIR=$root/../shared bash "tests/$1"
}
tests_with() { PEFT_ISA=$1 ctest --test-dir build/release --output-on-failure -j "$jobs" | tee "$logs/isa_$1.full" | tail -n 40 |
    grep -E 'tests passed|\(Failed\)|\(Timeout\)' ; ! grep -q -E '\(Failed\)|\(Timeout\)|\(Not Run\)' "$logs/isa_$1.full"; }

tsan() {
    cmake --preset tsan -Wno-dev && cmake --build build/tsan || return 1
    TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1" \
        ctest --test-dir build/tsan --output-on-failure -j "$jobs" -LE slow | tail -n 60
    return "${PIPESTATUS[0]}"
}

# valgrind knows no AVX-512; programs that fork, time out or count allocations are left to the sanitizers.
memcheck() {
    local t failed=0
    for t in arena buf map str hash rng file json yaml csv safetensors safetensors_write zip_pt adapter_file \
        checkpoint trainer_state tokenizer_json batch graph; do
        [ -x "build/release/tests/test_$t" ] || { echo "no test_$t"; continue; }
        PEFT_ISA=avx2 valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
            "build/release/tests/test_$t" >"$logs/valgrind_$t.log" 2>&1
        [ $? = 99 ] && { echo "test_$t: see $logs/valgrind_$t.log"; failed=1; }
    done
    local scratch
    scratch=$(mktemp -d)
    build/release/make_model "$scratch/tiny" && cp tests/cli/common/config.yaml tests/cli/common/qa.csv "$scratch" &&
        (cd "$scratch" && PEFT_ISA=avx2 valgrind -q --error-exitcode=99 --leak-check=full \
            --errors-for-leak-kinds=definite "$root/build/release/peft-toolkit" train config.yaml \
            data.test_size=4 training.eval_steps=2 training.save_steps=2 training.num_threads=2)
    [ $? = 0 ] || failed=1
    rm -rf "$scratch"
    [ $failed = 0 ] && echo "no error, nothing lost"
    return $failed
}

fuzz() {
    [ "$fuzz_seconds" -gt 0 ] || { echo "FUZZ_SECONDS=0"; return 77; }
    cmake --preset fuzz -Wno-dev && cmake --build build/fuzz || return 1
    local target name failed=0 count=0
    for target in build/fuzz/tests/fuzz_*; do
        [ -x "$target" ] && [ -f "$target" ] || continue
        name=$(basename "$target")
        mkdir -p "$logs/$name"
        "$target" -max_total_time="$fuzz_seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
            -artifact_prefix="$logs/$name-" "$logs/$name" "tests/fuzz/corpus/$name" || { echo "$name: FAILED"; failed=1; }
        count=$((count + 1))
    done
    echo "$count fuzzers, $fuzz_seconds seconds each"
    return $failed
}

part build release
for what in "$@"; do
    case $what in
    isa) for isa in scalar avx2 avx512; do part "isa_$isa" tests_with $isa; done ;;
    kill) KILLS=$kills part kill script recipes/run_kill.sh ;;
    faults) FAULTS=all part faults script recipes/run_faults.sh ;;
    memory) PEFT_LONG=1 part memory script recipes/run_memory.sh ;;
    tsan) part tsan tsan ;;
    valgrind) part valgrind memcheck ;;
    fuzz) part fuzz fuzz ;;
    *) echo "unknown part $what"; exit 2 ;;
    esac
done
printf '\n'
printf '%s\n' "${results[@]}"
[ $failures = 0 ] || { echo "$failures parts failed"; exit 1; }
