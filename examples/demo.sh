#!/usr/bin/env bash
# The bundled example from end to end: evaluate the base, train an adapter, evaluate it, merge, generate.
set -euo pipefail
cd "$(dirname "$0")/.."
peft=build/release/peft-toolkit
config=examples/demo/config.yaml
mkdir -p build/demo
say() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
[ -t 2 ] || say() { printf '\n%s\n' "$*" >&2; }

say "1. The base model on 200 questions that nobody has trained on"
$peft eval -q "$config" --base | tee build/demo/base.json

say "2. LoRA, ten epochs over 1,600 questions"
$peft train --config "$config" --overwrite

say "3. Base and adapter on the same 200 questions"
$peft eval -q "$config" --adapter build/demo/outputs | tee build/demo/adapter.json

say "4. Merge into one model, and proof of it"
$peft merge -q --ckpt build/demo/outputs --output build/demo/merged --overwrite

say "5. The merged model answers"
prompt=$'Q: What comes before 580?\nA:'
printf '%s' "$prompt"
$peft generate -q --model build/demo/merged --prompt "$prompt" --max-new-tokens 12

exact() { sed 's/.*"eval_exact_match": \([0-9.]*\).*/\1/' "$1"; }
base=$(exact build/demo/base.json) adapter=$(exact build/demo/adapter.json)
printf '\nexact match on held-out questions: base %s%%, adapter %s%%\n' "$base" "$adapter"
awk -v b="$base" -v a="$adapter" 'BEGIN { exit !(b <= 10 && a >= 80) }' || {
    echo "demo: expected at most 10% from the base and at least 80% from the adapter" >&2
    exit 1
}
