#!/bin/bash
# Stopping, damaged checkpoints, resuming: the final adapter is always that of the uninterrupted run.
source "$SOURCE_DIR/tests/recipes/recipe.sh"

train training.output_dir=whole || fail "the run"
want=$(sha whole)
losses whole >losses.want
no_leftovers whole

check() { # what
    [ "$(sha out)" = "$want" ] || fail "$1: another adapter"
    losses out | cmp -s - losses.want || fail "$1: other losses in trainer_state.json"
    no_leftovers out
    echo "$1: the same bytes"
}

# --- signals: a checkpoint, the code of the signal, and nothing lost
wait_for() { # path, pid: until the path is there
    while ! [ -e "$1" ]; do
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.01
    done
}
for sig in INT TERM; do
    [ $sig = INT ] && code=130 || code=143
    rm -rf out
    # a shell starts background jobs with SIGINT ignored
    env --default-signal=INT "$PEFT" train config.yaml >stdout 2>log &
    pid=$!
    wait_for out/checkpoint-10 $pid || fail "SIG$sig: the run ended before checkpoint-10"
    kill -$sig $pid
    wait $pid
    got=$?
    [ $got = 0 ] && { echo "SIG$sig came after the end: not tested"; continue; }
    [ $got = $code ] || fail "SIG$sig: exit code $got, not $code"
    grep -q -i "checkpoint" log || fail "SIG$sig: the message names no checkpoint"
    [ ! -e out/finished ] || fail "SIG$sig: marked as finished"
    train --resume || fail "resume after SIG$sig"
    check "SIG$sig"
done

# --- a second signal ends at once, whatever the step is doing
{
    head -1 qa.csv
    for i in $(seq 600); do tail -n +2 qa.csv; done
} >many.csv
rm -rf out
env --default-signal=INT "$PEFT" train config.yaml data.train=many.csv '~data.test_size' \
    training.max_steps=20000 '~training.eval_steps' '~training.load_best_model_at_end' \
    training.per_device_train_batch_size=38400 >stdout 2>log &
pid=$!
wait_for out/train.log $pid || fail "the long step did not start"
sleep 0.5
# a signal that is still pending swallows the next one: leave time between them, far less than a step takes
kill -INT $pid
sleep 0.1
kill -INT $pid
sleep 0.1
kill -INT $pid 2>/dev/null
start=$(date +%s)
wait $pid
got=$?
[ $got = 130 ] || fail "second signal: exit code $got, not 130"
[ $(($(date +%s) - start)) -le 5 ] || fail "second signal: took more than five seconds"
grep -q "stopped by" log && fail "second signal: it waited for the end of the step"
echo "second signal: ended at once"

# --- a damaged checkpoint is refused by name, the one before it is used
interrupted() { # a run that was killed after checkpoint-30
    rm -rf out
    cp -r stopped out
}
rm -rf out
# all checkpoints are kept: how far the run gets before it is killed must not decide which are there
"$PEFT" train config.yaml training.save_total_limit=0 >stdout 2>log &
pid=$!
wait_for out/checkpoint-30 $pid || fail "the run ended before checkpoint-30"
kill -9 $pid
wait $pid 2>/dev/null
rm -rf out/checkpoint-[45]* out/checkpoint-3[1-9] out/finished out/adapter_model.safetensors
[ -d out/checkpoint-30 ] || fail "checkpoint-30 is gone"
mv out stopped
files=$(cd stopped/checkpoint-30 && ls)
for f in $files; do
    for damage in flip truncate remove; do
        interrupted
        victim=out/checkpoint-30/$f
        case $damage in
        flip)
            size=$(stat -c %s "$victim")
            at=$((size / 2))
            byte=$(od -An -tu1 -j $at -N 1 "$victim" | tr -d ' ')
            printf "\\x$(printf %02x $((byte ^ 4)))" |
                dd of="$victim" bs=1 seek=$at conv=notrunc status=none ;;
        truncate) truncate -s -1 "$victim" ;;
        remove) rm "$victim" ;;
        esac
        train --resume || fail "$damage $f"
        grep -q "checkpoint-30.*$f" log || fail "$damage $f: the message does not name checkpoint and file"
        grep -q "resuming after step 2" log || fail "$damage $f: the checkpoint before was not used"
        check "$damage checkpoint-30/$f"
    done
done
interrupted
for f in out/checkpoint-*/state.safetensors; do truncate -s 100 "$f"; done
train --resume || fail "all checkpoints damaged"
check "all checkpoints damaged: from the beginning"

# --- what else resume promises
interrupted
train --resume out/checkpoint-25 || fail "--resume DIR"
check "--resume DIR"
train --resume || fail "a finished run"
grep -q "nothing is left to do" log || fail "a finished run: the message"
check "a finished run is left alone"
interrupted
train --resume training.num_threads=2 || fail "another number of threads"
check "resumed with another number of threads"
