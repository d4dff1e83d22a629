#!/bin/bash
# EVA: a run trains, saves plain LoRA with patterns that opens again, and is resumed to the same bytes; wrong use.
source "$SOURCE_DIR/tests/recipes/recipe.sh"

eva=(peft.lora.init_lora_weights=eva peft.lora.r=3 peft.lora.eva_rho=3)
train "${eva[@]}" || fail "a run with eva"
grep -q 'eva: .* layers begin with ranks from .* looked at .* rows' log || fail "what was done is not said"
grep -q rank_pattern out/adapter_config.json && grep -q alpha_pattern out/adapter_config.json ||
    fail "no patterns: $(cat out/adapter_config.json)"
last_loss() { grep -o '"eval_loss": [0-9.e-]*' "$1/metrics.jsonl" | tail -1; }
"$PEFT" eval config.yaml training.output_dir=out >eval 2>log || fail "eval: $(cat log)"
"$PEFT" merge --ckpt out --output merged >stdout 2>log || fail "merge: $(cat log)"
echo "eva: trained, opened again, merged and verified"

train "${eva[@]}" training.output_dir=threads training.num_threads=2 || fail "two threads"
[ "$(sha threads)" = "$(sha)" ] || fail "two threads: other bytes"
echo "eva: the same bytes on two threads"

"$PEFT" train config.yaml "${eva[@]}" training.output_dir=resumed >stdout 2>log &
pid=$!
while ! [ -e resumed/checkpoint-10 ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
train "${eva[@]}" training.output_dir=resumed --resume || fail "resume"
[ "$(sha resumed)" = "$(sha)" ] || fail "resumed: other bytes"
echo "eva: killed, resumed, the same bytes"

# where little rank goes round, layers get none: the folder names those that have some
golden=$SOURCE_DIR/tests/golden
cat >few.yaml <<END
model: {name_or_path: $golden/methods/base_llama, tokenizer_name_or_path: $golden/tokenizers/byte_level}
peft:
  method: lora
  lora: {r: 1, eva_rho: 9, eva_use_label_mask: false, init_lora_weights: eva, target_modules: all-linear}
data: {train: $golden/eva/rows.jsonl, input_ids: input_ids}
training: {output_dir: few, max_steps: 2, per_device_train_batch_size: 3}
END
"$PEFT" train few.yaml >stdout 2>log || fail "rank 1"
grep -q 'eva: .*[1-9][0-9]* left out' log || fail "no layer was left out: $(grep eva: log)"
grep -q '"model.layers.0.self_attn.o_proj"' few/adapter_config.json || fail "targets: $(cat few/adapter_config.json)"
"$PEFT" eval few.yaml data.test=$golden/eva/rows.jsonl >eval 2>log || fail "eval of few: $(cat log)"
echo "eva: layers left out, opened again"

refuse() { # words in the message, overrides...
    local words=$1
    shift
    train training.output_dir=no "$@" && fail "$*: was taken"
    grep -q "$words" log || fail "$*: $(cat log)"
}
refuse "is the output head" "${eva[@]}" "peft.lora.target_modules=[lm_head]"
refuse "rows to look" "${eva[@]}" peft.lora.eva_rows=4
"$PEFT" plan config.yaml "${eva[@]}" >stdout 2>log || fail "plan: $(cat log)"
grep -q "which a plan does not" stdout log || fail "plan does not say what it assumes"
echo "eva: wrong use answered, plan says what it assumes"
