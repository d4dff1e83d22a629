#!/bin/bash
# Classes of texts (SEQ_CLS): a run with a head for classes is stopped or killed at a step and resumed, and ends in the
# same bytes, adapter and head, on a BERT and on a Llama.
source "$SOURCE_DIR/tests/recipes/recipe.sh"

golden=$SOURCE_DIR/tests/golden
cp -r "$golden/classes/bert_seq" bert
# one word, one id: all that the BERT's vocabulary of 64 has room for
{ printf '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n'; for i in $(seq 59); do echo "w$i"; done; } >bert/vocab.txt
cat >bert/tokenizer_config.json <<'EOF'
{"tokenizer_class": "BertTokenizer", "do_lower_case": false, "cls_token": "[CLS]", "sep_token": "[SEP]",
 "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
EOF
awk 'BEGIN {
    print "text,class"
    for (i = 0; i < 60; i++) {
        k = i % 3
        t = "w" (i * 7 % 59 + 1)
        for (j = 0; j < 2 + i % 5; j++) t = t " w" (20 * k + (i * j) % 19 + 1)
        print t ",class " k
    }
}' >classes.csv

config_of() { # model
    cat <<EOF
model: {name_or_path: $1}
peft:
  task_type: SEQ_CLS
  method: lora
  lora: {r: 4, alpha: 8, dropout: 0.1}
data: {train: classes.csv, text: "{text}", label: class, test_size: 0.1, shuffle: true}
training:
  output_dir: out
  per_device_train_batch_size: 3
  gradient_accumulation_steps: 2
  learning_rate: 5e-3
  max_steps: 40
  eval_steps: 7
  save_steps: 5
  save_total_limit: 0
  load_best_model_at_end: true
  metric_for_best_model: eval_loss
  logging_steps: 4
  num_threads: 1
seed: 42
EOF
}

# until the run has written this checkpoint
wait_for() { # path, pid
    while ! [ -e "$1" ]; do
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.01
    done
}

# A run that is over before the signal comes has nothing to resume: whatever it wrote behind the checkpoint goes.
back_to() { # folder, step
    local c
    for c in "$1"/checkpoint-*; do
        [ "${c##*-}" -le "$2" ] || rm -rf "$c"
    done
    rm -f "$1"/finished "$1"/adapter_model.safetensors
}

for model in bert tiny; do
    config_of $model >config.yaml
    train training.output_dir=whole-$model || fail "$model: the run"
    want=$(sha whole-$model)
    losses whole-$model >losses.want
    "$PEFT" adapter inspect whole-$model >stdout 2>log || fail "$model: inspect"
    grep -q 'classifier\|score' stdout || fail "$model: no head for classes in the folder: $(cat stdout)"
    no_leftovers whole-$model
    for how in TERM KILL; do
        rm -rf out
        "$PEFT" train config.yaml >stdout 2>log &
        pid=$!
        wait_for out/checkpoint-10 $pid || fail "$model: no checkpoint-10"
        kill -$how $pid 2>/dev/null
        wait $pid 2>/dev/null
        [ -e out/finished ] && [ $how = TERM ] && echo "$model: SIGTERM came after the end: not tested"
        [ $how = TERM ] || back_to out 10
        train --resume || fail "$model: resume after SIG$how"
        [ $how = TERM ] || grep -q "resuming after step 10" log || fail "$model: it did not resume: $(cat log)"
        [ "$(sha out)" = "$want" ] || fail "$model: other bytes after SIG$how"
        losses out | cmp -s - losses.want || fail "$model: other losses after SIG$how"
        no_leftovers out
    done
    "$PEFT" eval config.yaml >eval 2>log || fail "$model: eval: $(cat log)"
    grep -q '"eval_accuracy"\|accuracy' eval || fail "$model: no accuracy: $(cat eval)"
    echo "$model: stopped and killed, resumed, the same bytes"
done
