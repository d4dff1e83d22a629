#!/bin/bash
# kill -9 at random moments, as often as it takes: after --resume the adapter is that of the
# uninterrupted run. KILLS: how many (10; check-long has 60 or more); KILL_SEED repeats a sequence.
source "$SOURCE_DIR/tests/recipes/recipe.sh"
kills=${KILLS:-10}
RANDOM=${KILL_SEED:=$$}
echo "KILL_SEED=$KILL_SEED"

start=$(date +%s%N)
train training.output_dir=whole || fail "the run"
span=$((($(date +%s%N) - start) / 1000000)) # milliseconds of an uninterrupted run
want=$(sha whole)
losses whole >losses.want

done_kills=0 runs=0 early=0
while [ $done_kills -lt "$kills" ]; do
    rm -rf out
    runs=$((runs + 1))
    while :; do
        "$PEFT" train config.yaml --resume >stdout 2>log &
        pid=$!
        if [ $done_kills -lt "$kills" ]; then
            nap=$((RANDOM * 32768 + RANDOM))
            nap=$((nap % (span + 1)))
            sleep "$((nap / 1000)).$(printf %03d $((nap % 1000)))"
            kill -9 $pid 2>/dev/null
        fi
        wait $pid 2>/dev/null
        code=$?
        [ $code = 0 ] && break
        [ $code = 137 ] || fail "exit code $code after $done_kills kills"
        done_kills=$((done_kills + 1))
        [ -d out ] && ls out | grep -q ^checkpoint- || early=$((early + 1))
    done
    [ "$(sha out)" = "$want" ] || fail "run $runs, $done_kills kills so far: another adapter"
    losses out | cmp -s - losses.want || fail "run $runs: other losses in trainer_state.json"
    no_leftovers out
done
echo "$done_kills kills in $runs runs ($early before the first checkpoint): the same bytes every time"
