#!/bin/bash
# One configuration, one kind of machine: the same bytes, on any number of threads and data workers.
# Another cut of the steps changes the last bits of the losses at most.
source "$SOURCE_DIR/tests/recipes/recipe.sh"

train training.output_dir=first || fail "the run"
want=$(sha first)
losses first >losses.want
[ "$(wc -l <losses.want)" -ge 14 ] || fail "ten log lines and five evaluations expected"

again() { # name, overrides: the same bytes
    local name=$1
    shift
    train training.output_dir="$name" "$@" || fail "$name"
    [ "$(sha "$name")" = "$want" ] || fail "$name: another adapter"
    losses "$name" | cmp -s - losses.want || fail "$name: other losses in trainer_state.json"
    echo "$name: the same bytes"
}
again same
again two_threads training.num_threads=2
again three_threads training.num_threads=3
again evaluated_otherwise data.share_prefixes=never training.per_device_eval_batch_size=3
again data_workers training.dataloader_num_workers=3 training.num_threads=2

differs() {
    local name=$1
    shift
    train training.output_dir="$name" "$@" || fail "$name"
    [ "$(sha "$name")" != "$want" ] || fail "$name: should have changed the adapter"
    echo "$name: another adapter, as it should be"
}
differs another_seed seed=43
differs no_dropout peft.lora.dropout=0
differs no_shuffle data.shuffle=false

# Every loss of two runs, side by side: the largest relative difference.
near() { # name, tolerance, overrides
    local name=$1 limit=$2
    shift 2
    train training.output_dir="$name" "$@" || fail "$name"
    losses "$name" >losses.got
    [ "$(wc -l <losses.got)" = "$(wc -l <losses.want)" ] || fail "$name: another number of losses"
    paste losses.want losses.got | awk -v limit="$limit" -v name="$name" '
        { d = $2 - $4; if (d < 0) d = -d; d /= $2; if (d > most) most = d }
        END { printf "%s: losses differ by %.1e at most\n", name, most; exit !(most <= limit) }' ||
        fail "$name: more than $limit"
}
near small_batches 1e-4 training.tokens_per_batch=16
near checkpointing 1e-4 training.gradient_checkpointing=true
near unfused 1e-4 training.fuse=false

# The base's own dropout beside the adapter's: masks do not know of threads or of what is computed again.
train training.output_dir=base model.dropout=0.1 || fail "dropout of the base"
[ "$(sha base)" != "$want" ] || fail "dropout of the base should have changed the adapter"
want=$(sha base)
losses base >losses.want
again base_two_threads model.dropout=0.1 training.num_threads=2
again base_three_threads model.dropout=0.1 training.num_threads=3 training.dataloader_num_workers=2
near base_small_batches 1e-4 model.dropout=0.1 training.tokens_per_batch=16
near base_checkpointing 1e-4 model.dropout=0.1 training.gradient_checkpointing=true
near base_unfused 1e-4 model.dropout=0.1 training.fuse=false
differs base_other_rate model.dropout=0.2
