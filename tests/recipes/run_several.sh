#!/bin/bash
# Several methods at once, and a new adapter on top of a frozen one: folders, evaluation, merge, resume, wrong use.
source "$SOURCE_DIR/tests/recipes/recipe.sh"

# the run of recipe.sh, with two methods instead of its one
with_two_methods() { # in, out: the peft section replaced by a list
    awk '/^[a-z]/ {skip = ($0 ~ /^peft:/)} !skip' "$1" >"$2"
    cat >>"$2" <<'EOF'
peft:
  - method: lora
    lora: {r: 4, alpha: 8, target_modules: [q_proj, v_proj]}
  - method: ia3
    ia3: {target_modules: [down_proj], feedforward_modules: [down_proj]}
EOF
}
with_two_methods config.yaml two.yaml
sum_of() { cat "$1"/*/adapter_model.safetensors | sha256sum; }
last_loss() { grep -o '"eval_loss": [0-9.e-]*' "$1/metrics.jsonl" | tail -1; }

"$PEFT" train two.yaml training.output_dir=both >stdout 2>log || fail "two methods"
cp log both.log
for part in lora ia3; do
    [ -s both/$part/adapter_config.json ] || fail "both/$part has no adapter_config.json"
done
grep -q '"LORA"' both/lora/adapter_config.json && grep -q '"IA3"' both/ia3/adapter_config.json ||
    fail "the parts are not LORA and IA3"
"$PEFT" eval two.yaml training.output_dir=both >eval 2>log || fail "eval of both"
[ "$(grep -o '"eval_loss": [0-9.e-]*' eval)" = "$(last_loss both)" ] ||
    fail "opened again they give another loss: $(cat eval), $(last_loss both)"
echo "two methods: saved, opened, the same loss"

# each part does something: the loss of one alone is another
"$PEFT" eval two.yaml --adapter both/lora >eval 2>log || fail "eval of a part"
[ "$(grep -o '"eval_loss": [0-9.e-]*' eval)" != "$(last_loss both)" ] || fail "ia3 does nothing"
"$PEFT" merge --ckpt both --output merged >stdout 2>log || fail "merge of both: $(cat log)"
echo "two methods: merged and verified"

"$PEFT" plan config.yaml model.adapter_name_or_path=both >stdout 2>log || fail "plan of a list that goes on: $(cat log)"
[ "$(grep -o 'trainable params: [0-9,]*' stdout)" = "$(grep -o 'trainable params: [0-9,]*' both.log)" ] ||
    fail "plan of a list that goes on counts other parameters: $(cat stdout)"

# stopped half-way and resumed: the same bytes
rm -rf resumed
"$PEFT" train two.yaml training.output_dir=resumed >stdout 2>log &
pid=$!
while ! [ -e resumed/checkpoint-10 ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
"$PEFT" train two.yaml training.output_dir=resumed --resume >stdout 2>log || fail "resume: $(cat log)"
[ "$(sum_of resumed)" = "$(sum_of both)" ] || fail "resumed: other bytes"
echo "two methods: killed, resumed, the same bytes"

# what a part does not train is not counted: LoRA-FA leaves A as it began
sed 's/alpha: 8, target/alpha: 8, lora_fa: true, target/' two.yaml >frozen.yaml
"$PEFT" plan two.yaml >stdout 2>log && all=$(grep -o 'trainable params: [0-9,]*' stdout | tr -dc 0-9) || fail "plan of two"
"$PEFT" plan frozen.yaml >stdout 2>log && some=$(grep -o 'trainable params: [0-9,]*' stdout | tr -dc 0-9) || fail "plan of frozen"
# of q_proj and v_proj in two layers: A is 4 x 32
[ $((all - some)) = $((2 * 2 * 4 * 32)) ] || fail "LoRA-FA beside ia3: $some trained, without it $all"
"$PEFT" train frozen.yaml training.output_dir=frozen training.max_steps=2 >stdout 2>log || fail "LoRA-FA beside ia3: $(cat log)"
grep -q "trainable params: $(echo $some | sed ':a;s/\B[0-9]\{3\}\>/,&/;ta')" log || fail "the run counts other parameters: $(grep trainable log)"
grep -q "\"trained_parameters\": $some\b" frozen/*.json || fail "trained parameters in the folder: $(grep -o '"trained_parameters[^,]*' frozen/*.json)"
echo "LoRA-FA beside ia3: $some of $all trained"

# a new adapter on top; what is below stays as it is
before=$(sum_of both)
train model.adapter_name_or_path=both model.create_new_adapter=true training.output_dir=top \
    "peft.lora.target_modules=[q_proj,v_proj]" \
    training.eval_on_start=true || fail "on top: $(cat log)"
[ "$(sum_of both)" = "$before" ] || fail "the adapter below was changed"
grep -q on_top_of top/adapters.json || fail "top does not say what it stands on"
first=$(grep -o '"eval_loss": [0-9.e-]*' top/metrics.jsonl | head -1)
[ "$first" = "$(last_loss both)" ] || fail "step 0 is not the adapter below: $first, $(last_loss both)"
"$PEFT" eval config.yaml training.output_dir=top >eval 2>log || fail "eval of top"
[ "$(grep -o '"eval_loss": [0-9.e-]*' eval)" = "$(last_loss top)" ] || fail "top gives another loss"
"$PEFT" merge --ckpt top --output merged-top >stdout 2>log || fail "merge of top: $(cat log)"
mv both elsewhere
"$PEFT" eval config.yaml training.output_dir=top >eval 2>log && fail "top was opened without what is below it"
grep -q "stands on another adapter" log || fail "the message: $(cat log)"
mv elsewhere both
echo "on top of a frozen one: as it should be"

# --- wrong use: one line each, exit code 78
refuse() { # words in the message, overrides...
    local words=$1
    shift
    "$PEFT" train "$@" training.output_dir=no >stdout 2>log
    [ $? = 78 ] && grep -q "$words" log || fail "$*: $(cat log)"
}
refuse "a second time" two.yaml peft.also=[ia3,ia3]
refuse "did you mean ia3" two.yaml peft.also=[ia4]
refuse "names no adapter to train on top" config.yaml model.create_new_adapter=true
"$PEFT" train two.yaml peft.also=[full] training.output_dir=no >stdout 2>log && fail "full beside lora"
grep -q "cannot train beside other methods" log || fail "full beside lora: $(cat log)"
printf 'peft:\n  - method: lora\n  - ia3\n' >bad.yaml
refuse "peft\[1\] is text" bad.yaml
echo "wrong use: answered"

# --- adapters as things
"$PEFT" adapter convert both --to lora --rank 32 --output full-rank >stdout 2>log || fail "convert: $(cat log)"
grep -q "left out, of the norm of what changes: 0 %\|e-[0-9]* % in all" stdout || fail "rank 32 misses something: $(cat stdout)"
"$PEFT" eval config.yaml --adapter full-rank >eval 2>log || fail "eval of the converted one"
awk -v a="$(grep -o '"eval_loss": [0-9.e-]*' eval | cut -d' ' -f2)" -v b="$(last_loss both | cut -d' ' -f2)" \
    'BEGIN {d = a - b; exit !(d < 1e-4 && d > -1e-4)}' || fail "converted: $(cat eval), $(last_loss both)"
"$PEFT" adapter convert full-rank --to mlx --output as-mlx >stdout 2>log &&
    "$PEFT" adapter convert as-mlx --to peft --output back >stdout 2>log || fail "mlx and back: $(cat log)"
"$PEFT" adapter combine -a full-rank -w 0.5 -a back -w 0.5 --kind svd --svd-rank 32 -o mixed >stdout 2>log ||
    fail "combine: $(cat log)"
"$PEFT" eval config.yaml --adapter mixed >eval 2>log || fail "eval of the combination"
awk -v a="$(grep -o '"eval_loss": [0-9.e-]*' eval | cut -d' ' -f2)" -v b="$(last_loss both | cut -d' ' -f2)" \
    'BEGIN {d = a - b; exit !(d < 1e-4 && d > -1e-4)}' || fail "half and half: $(cat eval), $(last_loss both)"
"$PEFT" adapter combine -a full-rank -o mixed >stdout 2>log && fail "an existing folder was overwritten"
"$PEFT" adapter diff both/lora both/lora >stdout 2>log || fail "an adapter differs from itself"
"$PEFT" adapter diff both/lora both/ia3 >stdout 2>log
[ $? = 1 ] && grep -q '^key peft_type: "LORA" | "IA3"' stdout || fail "diff: $(cat stdout log)"
"$PEFT" adapter inspect both/ia3 >stdout 2>log && grep -q 'ia3_l *\[' stdout || fail "inspect: $(cat stdout log)"
"$PEFT" adapter inspect both/lora --json >stdout 2>log && grep -q update_norm stdout || fail "inspect --json"
echo "adapters as things: converted, combined, compared"

# --- the way back: the base from the merged model
"$PEFT" merge --ckpt both --model merged --unmerge --output unmerged >stdout 2>log || fail "unmerge: $(cat log)"
"$PEFT" eval config.yaml --base model.name_or_path=unmerged >eval 2>log || fail "eval of the unmerged base"
"$PEFT" eval config.yaml --base >base 2>log || fail "eval of the base"
awk -v a="$(grep -o '"eval_loss": [0-9.e-]*' eval | cut -d' ' -f2)" -v b="$(grep -o '"eval_loss": [0-9.e-]*' base | cut -d' ' -f2)" \
    'BEGIN {d = a - b; exit !(d < 1e-6 && d > -1e-6)}' || fail "unmerged: $(cat eval base)"
train training.output_dir=dora training.max_steps=4 peft.lora.use_dora=true || fail "DoRA"
"$PEFT" merge --ckpt dora --output merged-dora >stdout 2>log || fail "merge of DoRA"
"$PEFT" merge --ckpt dora --model merged-dora --unmerge --output no >stdout 2>log && fail "DoRA was undone"
grep -q "cannot be undone" log && [ ! -e no ] || fail "DoRA: $(cat log)"
echo "unmerged: the base again"
