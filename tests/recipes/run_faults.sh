#!/bin/bash
# Every write, sync and rename of a run fails in turn: by SIGKILL there, and with a full disk. After
# --resume the adapter is that of the uninterrupted run. FAULTS=all takes each operation, otherwise a
# sample with the first, the last, and every one of the second save.
source "$SOURCE_DIR/tests/recipes/recipe.sh"
sed -i 's/max_steps: 40/max_steps: 9/; s/save_steps: 5/save_steps: 3/; s/eval_steps: 7/eval_steps: 4/;
        s/save_total_limit: 3/save_total_limit: 2/; s/logging_steps: 4/logging_steps: 2/' config.yaml

train training.output_dir=whole || fail "the run"
want=$(sha whole)

dies_at() { # k: does a run have a k-th operation?
    rm -rf out
    { PEFT_FILE_FAULT=$1:kill "$PEFT" train -q config.yaml >stdout 2>log; } 2>/dev/null
    [ $? = 137 ]
}
low=1 high=2
while dies_at $high; do low=$high high=$((2 * high)); done
while [ $((high - low)) -gt 1 ]; do
    mid=$(((low + high) / 2))
    if dies_at $mid; then low=$mid; else high=$mid; fi
done
n=$low
[ "$n" -ge 20 ] || fail "a run of $n operations is too short to mean something"

resumed() { # what
    unset PEFT_FILE_FAULT
    train --resume || fail "$1: resume"
    [ "$(sha out)" = "$want" ] || fail "$1: another adapter after resume"
    no_leftovers out
}
kill_at() {
    dies_at "$1" || fail "operation $1 of $n was not reached"
    resumed "killed at operation $1 of $n"
}
full_at() { # k, suffix
    rm -rf out
    PEFT_FILE_FAULT=$1:28$2 "$PEFT" train config.yaml >stdout 2>log
    code=$?
    if [ $code = 0 ]; then # metrics and the removal of old checkpoints: a warning, and on it goes
        grep -q 'warning: .*No space left on device' log || fail "operation $1$2 of $n failed unnoticed"
        [ "$(sha out)" = "$want" ] || fail "disk full at operation $1$2 of $n: another adapter"
        no_leftovers out
        warned=$((warned + 1))
        return
    fi
    [ $code = 74 ] || fail "disk full at operation $1$2 of $n: exit code $code, not 74"
    [ "$(grep -c 'error:' log)" = 1 ] || fail "disk full at operation $1$2: not one error line"
    grep -q 'error: .*No space left on device' log || fail "disk full at operation $1$2: the message"
    resumed "disk full at operation $1$2 of $n"
}
if [ "${FAULTS:-}" = all ]; then
    points=$(seq "$n")
else
    points=$(for i in $(seq 0 13); do echo $((1 + i * (n - 1) / 13)); done | sort -n -u)
fi
count=0 warned=0
for k in $points; do
    kill_at "$k"
    full_at "$k" ""
    count=$((count + 2))
done
for k in 1 $((n / 2)) "$n"; do full_at "$k" ":forever"; done
echo "$n operations; $count faults and 3 that stay: the same bytes after each ($warned only warned of)"
