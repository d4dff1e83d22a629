#!/bin/bash
# memory.sh - the peak that is planned before step 0 against the anonymous memory that is measured, as
# one table: shapes, storage types, methods, what is saved, threads, evaluation. Fails where one is more
# than 3 % apart.
#
#   bench/memory.sh            all of it: minutes, 5 GB of disk for the models
#   bench/memory.sh --quick    a small shape only: seconds
#
# PEFT and MAKE_MODEL name the programs (default: build/release); WORK the folder for models.
set -u
export LC_ALL=C
root=$(cd "$(dirname "$0")/.." && pwd)
PEFT=${PEFT:-$root/build/release/peft-toolkit}
MAKE_MODEL=${MAKE_MODEL:-$root/build/release/make_model}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
models=${WORK:-$scratch}
cd "$scratch" || exit 1

# Rows of 420 to 620 bytes, none like another: a byte is a token of the models' tokenizer.
awk 'BEGIN { s = 7
    for (i = 0; i < 48; i++) {
        q = ""; a = ""; n = 360 + (i * 37) % 120; m = 60 + (i * 53) % 80
        for (k = 0; k < n; k++) { s = (s * 69069 + 12345) % 4294967296; q = q sprintf("%c", 97 + int(s / 65536) % 26) }
        for (k = 0; k < m; k++) { s = (s * 69069 + 12345) % 4294967296; a = a sprintf("%c", 97 + int(s / 65536) % 26) }
        printf "{\"question\": \"%s\", \"answer\": \"%s\"}\n", q, a } }' >rows.jsonl
cat >config.yaml <<'EOF'
peft: {method: lora, lora: {r: 8, alpha: 16, target_modules: all-linear}}
data: {train: rows.jsonl, prompt: "Q: {question}\nA:", target: " {answer}"}
training: {output_dir: out, per_device_train_batch_size: 4, max_steps: 2, save_strategy: "no", num_threads: 2}
evaluation: {max_new_tokens: 16}
seed: 1
EOF

model() { # name, make_model's arguments: once
    local dir=$models/$1
    shift
    [ -f "$dir/model.safetensors" ] || "$MAKE_MODEL" "$@" "$dir" || exit 1
}
bytes_of() { awk -v s="$1" 'BEGIN {
    split(s, p, " "); u["B"] = 1; u["KiB"] = 1024; u["MiB"] = 1048576; u["GiB"] = 1073741824
    printf "%.0f", p[1] * u[p[2]] }'; }
bad=0
measure() { # what it is, model, overrides
    local what=$1 name=$2 line planned measured
    shift 2
    if ! "$PEFT" train config.yaml --overwrite model.name_or_path="$models/$name" "$@" >/dev/null 2>log; then
        tail -n 3 log
        exit 1
    fi
    line=$(grep '^memory: ' log)
    planned=$(sed 's/.*(\([0-9]*\) and \([0-9]*\) bytes).*/\1/' <<<"$line")
    measured=$(sed 's/.*(\([0-9]*\) and \([0-9]*\) bytes).*/\2/' <<<"$line")
    awk -v p="$planned" -v m="$measured" -v what="$what" 'BEGIN {
        r = 100 * (p / m - 1)
        printf "| %-58s | %8.1f | %8.1f | %+5.1f %% |\n", what, p / 1048576, m / 1048576, r
        exit !(r < 3 && r > -3) }' || bad=$((bad + 1))
}

echo "| configuration                                              | planned  | measured | error   |"
echo "|------------------------------------------------------------|---------:|---------:|--------:|"
model small hidden=256 layers=8 heads=8 kv_heads=4 ffn=768 vocab=4096 positions=2048
measure "4M, f32, LoRA r8" small
measure "4M, f32, LoRA r8, checkpointing, 1 thread" small training.gradient_checkpointing=true training.num_threads=1
measure "4M, f32, full" small peft.method=full
measure "4M, f32, LoRA r8, evaluation generates" small data.test_size=8 evaluation.generate=true training.per_device_eval_batch_size=4
measure "4M, f32, LoRA r8, memory_limit 60 MiB" small training.memory_limit=60MiB
if [ "${1:-}" != --quick ]; then
    model 135m-bf16 --shape smollm2-135m --dtype bf16
    model 135m-f32 --shape smollm2-135m --dtype f32
    model 135m-untied --shape smollm2-135m --dtype bf16 tie=0
    model 0.5b-bf16 --shape qwen2.5-0.5b --dtype bf16
    measure "135M, bf16, LoRA r8" 135m-bf16
    measure "135M, bf16, LoRA r8, checkpointing" 135m-bf16 training.gradient_checkpointing=true
    measure "135M, bf16, LoRA r64, 512 rows at once, 1 thread" 135m-bf16 peft.lora.r=64 training.tokens_per_batch=512 training.num_threads=1 training.max_steps=1
    measure "135M, f32, LoRA r8 on q and v, dropout" 135m-f32 peft.lora.target_modules=q_proj,v_proj peft.lora.dropout=0.1
    measure "135M, bf16 converted to f32, LoRA r8" 135m-bf16 model.torch_dtype=float32 training.max_steps=1
    measure "135M, bf16, full, checkpointing" 135m-bf16 peft.method=full training.gradient_checkpointing=true training.max_steps=1
    measure "135M, bf16, LoRA r8, modules_to_save lm_head" 135m-bf16 peft.lora.modules_to_save=[lm_head] training.max_steps=1
    measure "135M, bf16, untied, LoRA r16" 135m-untied peft.lora.r=16 training.max_steps=1
    measure "135M, bf16, LoRA r8, evaluation generates 4 at once" 135m-bf16 data.test_size=4 training.per_device_eval_batch_size=4 training.max_steps=1
    measure "135M, bf16, LoRA r8, memory_limit 400 MiB" 135m-bf16 training.memory_limit=400MiB training.max_steps=1
    measure "0.5B, bf16, LoRA r16, 512 rows at once" 0.5b-bf16 peft.lora.r=16 training.tokens_per_batch=512 training.max_steps=1
    measure "0.5B, bf16, LoRA r16, checkpointing" 0.5b-bf16 peft.lora.r=16 training.gradient_checkpointing=true training.max_steps=1
fi
[ "$bad" -eq 0 ] || { echo "$bad of them are more than 3 % apart"; exit 1; }
