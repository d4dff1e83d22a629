#!/usr/bin/env bash
# Does a narrow type of arithmetic train as well as f32? The same LoRA run in each type, on both small pretrained models
# and two data sets; what counts is how far the held-out loss falls (it is evaluated in f32), and the gradient norms.
# A type passes when its fall is within 0.5 % of f32's and its mean gradient norm within 5 %.
#
#   bench/gate.sh DATA [steps] [types]      DATA has models/ and datasets/; steps: 300; types: "bf16 int8"
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
data=$(realpath "$1") steps=${2:-300} types=${3:-bf16 int8}
root=$(realpath "$(dirname "$0")/..")
peft=${PEFT:-$root/build/release/peft-toolkit}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
grep -m1 "model name" /proc/cpuinfo
printf '%-16s %-8s %-5s %9s %9s %9s %9s\n' model data type before after fall "grad norm"
failed=0
run() { # model, name of the data set, type; leaves "before after norm" in $figures
    local out=$work/$(basename "$1")-$2-$3
    local prompt target file
    case $2 in
    gsm8k) file=gsm8k/train.jsonl prompt='Question: {question}\nAnswer:' target=' {answer}' ;;
    alpaca) file=alpaca-en/train.json prompt='{instruction}\n{input}\n' target='{output}' ;;
    esac
    "$peft" train /dev/null --quiet model.name_or_path="$1" data.train="$data/datasets/$file" \
        data.prompt="$(printf '%b' "$prompt")" data.target="$target" data.overlength=drop data.test_size=100 \
        peft.method=lora peft.lora.r=16 peft.lora.alpha=32 peft.lora.dropout=0 peft.lora.target_modules=all-linear \
        training.output_dir="$out" training.max_steps="$steps" training.per_device_train_batch_size=8 \
        training.gradient_accumulation_steps=1 training.learning_rate=1e-3 training.lr_scheduler_type=linear \
        training.logging_steps=1 training.eval_strategy=steps training.eval_steps="$steps" \
        training.eval_on_start=true training.save_strategy=no training.load_best_model_at_end=false \
        evaluation.generate=false training.compute="$3" >/dev/null
    figures=$(python3 - "$out/metrics.jsonl" <<'PY'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
losses = [r["eval_loss"] for r in rows if "eval_loss" in r]
norms = [r["grad_norm"] for r in rows if "grad_norm" in r]
print(losses[0], losses[-1], sum(norms) / len(norms))
PY
)
}
for model in "$data"/models/*/; do
    [ -f "$model/model.safetensors" ] || continue
    for set in gsm8k alpaca; do
        run "$model" $set f32
        read -r before after norm <<<"$figures"
        printf '%-16s %-8s %-5s %9.5f %9.5f %9.5f %9.5f\n' "$(basename "$model")" $set f32 "$before" "$after" \
            "$(python3 -c "print($before-$after)")" "$norm"
        for type in $types; do
            run "$model" $set "$type"
            read -r b a n <<<"$figures"
            python3 - "$(basename "$model")" $set "$type" "$b" "$a" "$n" "$before" "$after" "$norm" <<'PY' || failed=1
import sys
model, data, kind = sys.argv[1:4]
b, a, n, fb, fa, fn = map(float, sys.argv[4:])
fall, norm = (b - a) / (fb - fa) - 1, n / fn - 1
ok = abs(fall) <= 0.005 and abs(norm) <= 0.05
print(f"{model:16s} {data:8s} {kind:5s} {b:9.5f} {a:9.5f} {b - a:9.5f} {n:9.5f}  fall {100 * fall:+.2f} %, "
      f"norm {100 * norm:+.2f} %{'' if ok else '  OUT OF BOUNDS'}")
sys.exit(not ok)
PY
        done
    done
done
exit $failed
