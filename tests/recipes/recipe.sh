# recipe.sh - sourced by the scripts of this folder: a toy model of two layers, 64 questions, and a run
# that has everything which could go wrong after a resume: dropout, shuffling, accumulation, more than
# one epoch, evaluation with generation, checkpoints in the middle of an epoch, the best one kept.
set -u
export LC_ALL=C
unset PEFT_FILE_FAULT
work=$(mktemp -d)
trap 'jobs -p | xargs -r kill -9 2>/dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1

fail() {
    echo "FAILED: $*"
    [ -f log ] && tail -n 5 log
    exit 1
}

"$MAKE_MODEL" tiny hidden=32 layers=2 || fail "make_model"
{
    echo question,answer
    for a in 1 2 3 4 5 6 7 8; do for b in 1 2 3 4 5 6 7 8; do echo "$a+$b,$((a + b))"; done; done
} >qa.csv
cat >config.yaml <<'EOF'
model:
  name_or_path: tiny
peft:
  method: lora
  lora: {r: 4, alpha: 8, dropout: 0.1, target_modules: all-linear}
data:
  train: qa.csv
  prompt: "Q: {question}\nA:"
  target: " {answer}"
  test_size: 0.1
  shuffle: true
training:
  output_dir: out
  per_device_train_batch_size: 3
  gradient_accumulation_steps: 2
  learning_rate: 5e-3
  max_steps: 40
  eval_steps: 7
  save_steps: 5
  save_total_limit: 3
  load_best_model_at_end: true
  metric_for_best_model: eval_loss
  logging_steps: 4
  num_threads: 1
evaluation:
  max_new_tokens: 3
seed: 42
EOF

train() { "$PEFT" train config.yaml "$@" >stdout 2>log; }
sha() { sha256sum <"${1:-out}/adapter_model.safetensors" | cut -c1-64; }
# Nothing temporary stays in a run folder once its run is complete.
no_leftovers() {
    local left
    left=$(find "${1:-out}" -name '.*' ! -name .lock ! -path "${1:-out}" ; find "${1:-out}" -name '*.tmp*')
    [ -z "$left" ] || fail "left behind: $left"
}
# What trainer_state.json says about losses: the same after any interruption.
losses() { grep -o '"[a-z_]*loss": [-0-9.e]*' "${1:-out}/trainer_state.json" | grep -v train_loss; }
