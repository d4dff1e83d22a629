#!/bin/bash
# training.memory_limit: what is recomputed changes no bit of the adapter; a run stays below its limit;
# what was chosen is said, recorded, and taken again on resume; what cannot fit is one line.
source "$SOURCE_DIR/tests/recipes/recipe.sh"
"$MAKE_MODEL" small hidden=128 layers=6 heads=4 kv_heads=2 ffn=384 vocab=512 || fail "make_model"
sed -i 's/name_or_path: tiny/name_or_path: small/; s/max_steps: 40/max_steps: 6/; s/save_steps: 5/save_steps: 3/;
        s/per_device_train_batch_size: 3/per_device_train_batch_size: 24/; s/eval_steps: 7/eval_steps: 6/' config.yaml
bytes() { "$PEFT" plan config.yaml --json "$@" 2>>log | grep -o '"peak_bytes": [0-9]*' | grep -o '[0-9]*'; }

usual=$(bytes)
least=$(bytes training.gradient_checkpointing=true)
[ "$least" -lt "$usual" ] || fail "checkpointing needs $least bytes, the usual plan $usual"
train training.output_dir=usual || fail "without a limit"
limit=$(((usual + least) / 2))
train training.output_dir=limited training.memory_limit=$limit || fail "with a limit of $limit"
grep -q 'the backward pass recomputes .* of 6 blocks' log || fail "it is not said what is recomputed"
[ "$(sha usual)" = "$(sha limited)" ] || fail "a limit changed the adapter"
grep -q '"saved_for_backward": "part of the minimal exact set"' limited/environment.json || fail "it is not recorded"

# the first half under a limit, the rest without: the choice of the checkpoint stays
train training.output_dir=half training.memory_limit=$limit training.max_steps=3 training.lr_scheduler_type=constant || fail "half a run"
rm -f half/finished half/.finished
train --resume half/checkpoint-3 --overwrite training.output_dir=rest training.lr_scheduler_type=constant || fail "resume"
train training.output_dir=straight training.lr_scheduler_type=constant || fail "the straight run"
[ "$(sha rest)" = "$(sha straight)" ] || fail "resumed under another limit: another adapter"
grep -q '"saved_for_backward": "part of the minimal exact set"' rest/environment.json || fail "the choice was not taken again"

# too little for whole micro-batches: fewer rows at once, the same losses but for the last digits
train training.output_dir=few training.memory_limit=$((least - (usual - least) / 12)) || fail "a limit below checkpointing"
grep -q 'micro-batches have .* rows instead of' log || fail "it is not said that micro-batches shrank"
paste -d' ' <(losses usual | grep -o '[0-9.e-]*$') <(losses few | grep -o '[0-9.e-]*$') |
    awk '{ d = $1 / $2 - 1; if (d > 1e-5 || d < -1e-5) exit 1; n++ } END { exit n < 2 }' || fail "the losses differ"

train training.output_dir=none training.memory_limit=100KiB
[ $? = 6 ] || fail "a limit that nothing fits: exit code"
[ "$(grep -c 'error: training.memory_limit is 100 KiB and the smallest plan needs' log)" = 1 ] || fail "the message"
