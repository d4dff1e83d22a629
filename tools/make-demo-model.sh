#!/usr/bin/env bash
# Makes examples/demo/{base,train.csv,test.csv} anew: corpus and random weights by tools/make_demo.py, the base model by this
# program itself (peft.method: full), stored in bfloat16. Minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-build/demo-model}
peft=build/release/peft-toolkit
tools/make_demo.py "$work"
cat > "$work/base.yaml" <<YAML
model: {name_or_path: $work/init}
peft: {method: full}
data: {train: $work/corpus.jsonl, test: $work/corpus-test.jsonl, text: "{text}"}
training:
  output_dir: $work/run
  per_device_train_batch_size: 64
  gradient_accumulation_steps: 1
  learning_rate: 2e-3
  lr_scheduler_type: cosine
  warmup_steps: 50
  weight_decay: 0.01
  num_train_epochs: 1
  logging_steps: 25
  eval_steps: 300
  save_strategy: "no"
evaluation: {generate: false, max_samples: 200}
seed: 1
YAML
$peft train --config "$work/base.yaml" --overwrite
$peft merge --ckpt "$work/run" --model "$work/init" --output "$work/base" --dtype bfloat16 --overwrite
mkdir -p examples/demo/base
cp "$work"/base/{config.json,generation_config.json,model.safetensors,tokenizer.json,tokenizer_config.json} examples/demo/base/
cp "$work"/train.csv "$work"/test.csv examples/demo/
