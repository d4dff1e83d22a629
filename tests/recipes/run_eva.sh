#!/bin/bash
# EVA: a run trains, saves plain LoRA with patterns that opens again, and is resumed to the same bytes; beside another
# method, on top of a frozen adapter; its memory; wrong use.
source "$SOURCE_DIR/tests/recipes/recipe.sh"

eva=(peft.lora.init_lora_weights=eva peft.lora.r=3 peft.lora.eva_config.rho=3)
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
  lora: {r: 1, eva_config: {rho: 9, use_label_mask: false}, init_lora_weights: eva, target_modules: all-linear}
data: {train: $golden/eva/rows.jsonl, input_ids: input_ids}
training: {output_dir: few, max_steps: 2, per_device_train_batch_size: 3}
END
"$PEFT" train few.yaml >stdout 2>log || fail "rank 1"
grep -q 'eva: .*[1-9][0-9]* left out' log || fail "no layer was left out: $(grep eva: log)"
grep -q '"model.layers.0.self_attn.o_proj"' few/adapter_config.json || fail "targets: $(cat few/adapter_config.json)"
"$PEFT" eval few.yaml data.test=$golden/eva/rows.jsonl >eval 2>log || fail "eval of few: $(cat log)"
echo "eva: layers left out, opened again"

# in a list of methods: the other one does not act while EVA looks, so it sees the same
awk '/^[a-z]/ {skip = ($0 ~ /^peft:/)} !skip' config.yaml >two.yaml
cat >>two.yaml <<'END'
peft:
  - method: ia3
    ia3: {target_modules: [down_proj], feedforward_modules: [down_proj]}
  - method: lora
    lora: {r: 3, alpha: 8, dropout: 0.1, target_modules: all-linear, init_lora_weights: eva, eva_config: {rho: 3}}
END
pattern_of() { tr -d ' \n' <"$1/adapter_config.json" | grep -o '"rank_pattern":{[^}]*}'; }
"$PEFT" train two.yaml training.output_dir=two >stdout 2>log || fail "beside ia3: $(cat log)"
[ "$(pattern_of two/lora)" = "$(pattern_of out)" ] || fail "beside ia3 it has other ranks: $(pattern_of two/lora), $(pattern_of out)"
"$PEFT" train two.yaml training.output_dir=stopped >stdout 2>log &
pid=$!
while ! [ -e stopped/checkpoint-10 ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
"$PEFT" train two.yaml training.output_dir=stopped --resume >stdout 2>log || fail "resume beside ia3: $(cat log)"
cmp two/lora/adapter_model.safetensors stopped/lora/adapter_model.safetensors &&
    cmp two/ia3/adapter_model.safetensors stopped/ia3/adapter_model.safetensors || fail "beside ia3: other bytes after the resume"
"$PEFT" eval two.yaml training.output_dir=two >eval 2>log || fail "eval of two: $(cat log)"
echo "eva: beside ia3, and resumed there"

# on top of a frozen adapter: what is below acts while EVA looks, and stays as it is
train training.output_dir=below peft.lora.target_modules=[q_proj,v_proj] || fail "the adapter below"
before=$(sha below)
top=("${eva[@]}" model.adapter_name_or_path=below model.create_new_adapter=true)
train "${top[@]}" training.output_dir=top training.eval_on_start=true || fail "on top: $(cat log)"
grep -q 'eva: .* layers begin' log || fail "on top: no look: $(cat log)"
[ "$(sha below)" = "$before" ] || fail "on top: the adapter below was changed"
first=$(grep -o '"eval_loss": [0-9.e-]*' top/metrics.jsonl | head -1)
[ "$first" = "$(last_loss below)" ] || fail "on top: step 0 is not the adapter below: $first, $(last_loss below)"
cmp -s top/adapter_model.safetensors out/adapter_model.safetensors && fail "on top: as without"
train "${top[@]}" training.output_dir=again || fail "on top, again"
[ "$(sha again)" = "$(sha top)" ] || fail "on top, again: other bytes"
"$PEFT" eval config.yaml training.output_dir=top >eval 2>log || fail "eval of top: $(cat log)"
[ "$(grep -o '"eval_loss": [0-9.e-]*' eval)" = "$(last_loss top)" ] || fail "top opened again gives another loss"
echo "eva: on top of a frozen adapter"

# memory: the plan says what the look takes, a limit is respected, and does not change a bit
if grep -qa -e __asan_init -e __tsan_init "$PEFT"; then
    echo "eva: memory not measured: a sanitizer takes memory of its own"
else
    "$MAKE_MODEL" wide hidden=256 layers=4 || fail "make_model"
    wide=("${eva[@]}" model.name_or_path=wide training.per_device_train_batch_size=4 training.max_steps=2 '~training.eval_steps'
        '~training.load_best_model_at_end' '~data.test_size' peft.lora.eva_config.max_rows=300)
    number() { grep -o "\"$1\": [0-9]*" stdout | tr -dc 0-9; }
    "$PEFT" plan config.yaml "${wide[@]}" --json >stdout 2>log || fail "plan: $(cat log)"
    look=$(number first_look_bytes) peak=$(number peak_bytes)
    [ "$look" -gt 1000000 ] || fail "the plan has no first look: $(cat stdout)"
    "$PEFT" plan config.yaml "${wide[@]}" peft.lora.init_lora_weights=true '~peft.lora.eva_config' --json >stdout 2>log || fail "plan: $(cat log)"
    without=$(number peak_bytes)
    [ "$(number first_look_bytes)" = 0 ] && [ "$without" -lt "$peak" ] || fail "a first look without eva: $(cat stdout)"
    train "${wide[@]}" training.output_dir=free || fail "no limit: $(cat log)"
    train "${wide[@]}" training.output_dir=small training.memory_limit=$(((without + peak) / 2)) || fail "under a limit: $(cat log)"
    cmp free/adapter_model.safetensors small/adapter_model.safetensors || fail "under a limit: other bytes"
    train "${wide[@]}" training.output_dir=none training.memory_limit=2M && fail "a limit that cannot be kept was taken"
    grep -q "first weights that look at the data need" log || fail "a limit that cannot be kept: $(cat log)"
    echo "eva: planned, under a limit the same bytes"
fi

refuse() { # words in the message, overrides...
    local words=$1
    shift
    train training.output_dir=no "$@" && fail "$*: was taken"
    grep -q "$words" log || fail "$*: $(cat log)"
}
refuse "is the output head" "${eva[@]}" "peft.lora.target_modules=[lm_head]"
head -1 $golden/eva/rows.jsonl >one.jsonl
"$PEFT" train few.yaml training.output_dir=no data.train=one.jsonl peft.lora.r=16 >stdout 2>log && fail "one row for rank 32"
grep -q "give 14 rows to look at\|rows to look at, and up to rank 32" log || fail "one row: $(cat log)"
refuse "did you mean peft.lora.eva_config.rho" "${eva[@]}" peft.lora.eva_config.rhoo=2
echo "eva: wrong use answered"
