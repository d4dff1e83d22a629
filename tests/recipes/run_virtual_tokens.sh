#!/bin/bash
# Prompt tuning, prefix tuning (flat and projected) and P-tuning lower the held-out loss of both pretrained models of
# ../shared/data by training nothing but their virtual tokens.
set -u
export LC_ALL=C
data=$SHARED_DIR/data
if [ ! -d "$data/models/tinystories-656k" ] || [ ! -d "$data/models/stories260K-hf" ]; then
    echo "skipped: no pretrained models in $data/models"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
fail() {
    echo "FAILED: $*"
    tail -n 5 log
    exit 1
}
cat >config.yaml <<EOF
data:
  train: $data/datasets/qa-epic/train.csv
  test: $data/datasets/qa-epic/test.csv
  prompt: "Q: {question}\nA:"
  target: " {answer}"
training:
  per_device_train_batch_size: 16
  max_steps: 40
  eval_steps: 40
  eval_on_start: true
  save_strategy: "no"
  lr_scheduler_type: constant
  num_threads: 2
evaluation:
  generate: false
  max_samples: 128
seed: 7
EOF
losses() { grep -o '"eval_loss": *[0-9.e+-]*' "$1/metrics.jsonl" | sed 's/.*: *//'; }
for model in tinystories-656k stories260K-hf; do
    for how in 'prompt_tuning: {num_virtual_tokens: 20, prompt_tuning_init: SAMPLE_VOCAB}' \
        'prefix_tuning: {num_virtual_tokens: 20}' \
        'prefix_tuning: {num_virtual_tokens: 20, prefix_projection: true}' \
        'p_tuning: {num_virtual_tokens: 20, encoder_reparameterization_type: LSTM, encoder_hidden_size: 64}'; do
        method=${how%%:*}
        case $how in *LSTM* | *projection*) rate=3e-3 ;; *) rate=5e-2 ;; esac
        "$PEFT" train -q config.yaml model.name_or_path="$data/models/$model" peft.method="$method" "peft.$method=${how#*: }" \
            training.learning_rate=$rate training.output_dir=out >stdout 2>log || fail "$model, $how"
        before=$(losses out | head -1) after=$(losses out | tail -1)
        awk -v a="$before" -v b="$after" 'BEGIN { exit !(b > 0 && b < 0.95 * a) }' || fail "$model, $how: held-out loss $before -> $after"
        echo "$model, $how: held-out loss $before -> $after"
        rm -rf out
    done
done
