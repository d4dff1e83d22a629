#!/bin/bash
# The peak that is planned before step 0 against the anonymous memory that is measured, at the shape of
# SmolLM2-135M with random bf16 weights: within 5 %. Minutes long: PEFT_LONG=1 or tools/check-long.sh.
[ -n "${PEFT_LONG:-}" ] || { echo "skipped: minutes long; set PEFT_LONG=1"; exit 77; }
source "$SOURCE_DIR/tests/recipes/recipe.sh"
"$MAKE_MODEL" big hidden=576 layers=30 heads=9 kv_heads=3 ffn=1536 vocab=49152 positions=2048 dtype=BF16 ||
    fail "make_model"
for i in $(seq 24); do
    printf '{"question": "%s", "answer": "%s"}\n' "$(head -c 400 /dev/zero | tr '\0' q)" \
        "$(head -c 100 /dev/zero | tr '\0' a)"
done >long.jsonl

bytes_of() { awk -v s="$1" 'BEGIN {
    split(s, p, " "); u["B"] = 1; u["KiB"] = 1024; u["MiB"] = 1048576; u["GiB"] = 1073741824
    printf "%.0f", p[1] * u[p[2]] }'; }
measure() { # name, overrides
    local name=$1
    shift
    train model.name_or_path=big data.train=long.jsonl data.test_size=4 training.output_dir="$name" \
        training.per_device_train_batch_size=4 training.gradient_accumulation_steps=1 \
        training.max_steps=3 training.eval_steps=2 training.save_strategy=no \
        training.load_best_model_at_end=false training.num_threads=2 "$@" || fail "$name"
    line=$(grep '^memory: ' log) || fail "$name: no line about memory"
    planned=$(bytes_of "$(echo "$line" | sed 's/memory: \(.*\) planned.*/\1/')")
    measured=$(bytes_of "$(echo "$line" | sed 's/.* planned, \(.*\) measured.*/\1/')")
    awk -v p="$planned" -v m="$measured" -v name="$name" 'BEGIN {
        r = m / p - 1
        printf "%s: %.0f MiB planned, %.0f MiB measured: %+.1f %%\n", name, p / 1048576, m / 1048576, 100 * r
        exit !(r < 0.05 && r > -0.05) }' || fail "$name: more than 5 % apart"
}
measure usual
measure checkpointing training.gradient_checkpointing=true
measure half_the_tokens training.tokens_per_batch=512
