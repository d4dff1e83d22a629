#!/bin/bash
# run_golden.sh [case...] - what users read: each folder cases/<case> holds
#   cmd              lines of shell that run "$PEFT" in a scratch copy of the folder
#   code             the exit code that is expected
#   expected_stderr  what stderr says, after `plain` below has replaced what differs between machines
#   expected_stdout  likewise; a case without one must print nothing there
#   needs            (optional) a shell condition; where it does not hold the case is skipped
# and its own input files. common/ is copied beside them first; `tiny` there is a model of two layers
# with a byte-level tokenizer, `adapter` one trained on it, `st.sh` writes safetensors files by hand.
# UPDATE=1 writes the expected files instead of comparing: read them before you commit them.
set -u
here=$SOURCE_DIR/tests/cli
work=$(mktemp -d)
chmod 755 "$work"
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
export PEFT MAKE_MODEL TINY="$work/tiny" ADAPTER="$work/adapter" LC_ALL=C
unset PEFT_FILE_FAULT HF_HOME HF_HUB_CACHE

"$MAKE_MODEL" "$TINY" || exit 1
(cp -r "$here/common" "$work/setup" && cd "$work/setup" && ln -s "$TINY" tiny &&
    "$PEFT" train -q config.yaml training.output_dir="$ADAPTER" training.learning_rate=0.01) || exit 1

# Paths of the scratch folder, process ids, times, and the machine.
plain() {
    sed -e "s#$work/c/[a-z0-9_]*/#./#g" -e "s#$work/##g" -e "s#$SOURCE_DIR#SOURCE#g" \
        -e 's/pid [0-9][0-9]*/pid PID/' -e 's/[0-9.][0-9.]* tokens\/s/N tokens\/s/g' \
        -e 's/[0-9.]* supervised tokens\/s/N supervised tokens\/s/g' -e 's/ in [0-9.]* s:/ in T s:/' \
        -e 's/, [0-9.]* s)/, T s)/' -e 's/^device: .*/device: MACHINE/' \
        -e 's/\[[0-9:]*<[0-9:?]*, *[0-9.?]*[a-z/]*/[TIMES/' \
        -e 's/[0-9.]* [KMG]iB planned, [0-9.]* [KMG]iB measured/SIZE planned, SIZE measured/' \
        -e 's/([0-9]* and [0-9]* bytes)/(BYTES)/' -e 's/^\(  program: .*graphs, tables *\) [0-9.]* [KMG]*i*B /\1 SIZE /' \
        -e 's/^\(  peak *\) [0-9.]* [KMG]*i*B$/\1 SIZE/' \
        -e 's/should be one of lora, .*; did/should be one of METHODS; did/' \
        -e 's/; these are: LlamaForCausalLM.*/; these are: ARCHITECTURES/' \
        -e 's#\(tmp-checkpoint-3-[0-9a-f]*\)/[A-Za-z_]*\.[a-z]*: No space#\1/FILE: No space#' -e 's/needs [0-9.]* [KMG]iB/needs SIZE/' -e 's/recomputed: [0-9.]* [KMG]iB/recomputed: SIZE/' -e 's/and program: [0-9.]* [KMG]iB/and program: SIZE/' -e 's/\(checkpoint-[0-9]*\)-[0-9a-f]\{16\}/\1-RANDOM/'
}

same() { # case, stream
    local want="$here/cases/$1/expected_$2"
    plain <"$work/c/$1.$2" >"$work/c/$1.$2.plain"
    if [ -n "${UPDATE:-}" ]; then
        if [ -s "$work/c/$1.$2.plain" ]; then cp "$work/c/$1.$2.plain" "$want"; else rm -f "$want"; fi
        return 0
    fi
    [ -f "$want" ] || want=/dev/null
    diff -u "$want" "$work/c/$1.$2.plain" >"$work/diff" && return 0
    echo "--- $1: $2 is not what is expected"
    tail -n +3 "$work/diff"
    return 1
}

mkdir "$work/c"
failed=0 passed=0 skipped=0
[ $# -gt 0 ] || set -- $(cd "$here/cases" && ls)
for name in "$@"; do
    folder=$here/cases/$name
    [ -f "$folder/cmd" ] || { echo "--- $name has no cmd"; failed=$((failed + 1)); continue; }
    scratch=$work/c/$name
    mkdir "$scratch"
    cp -r "$here/common/." "$folder/." "$scratch/"
    rm -f "$scratch"/expected_* "$scratch/code" "$scratch/needs"
    mv "$scratch/cmd" "$work/c/$name.cmd"
    ln -s "$TINY" "$scratch/tiny"
    ln -s "$ADAPTER" "$scratch/adapter"
    if [ -f "$folder/needs" ] && ! (cd "$scratch" && bash "$folder/needs" >/dev/null 2>&1); then
        echo "skipped: $name needs $(cat "$folder/needs")"
        skipped=$((skipped + 1))
        continue
    fi
    (cd "$scratch" && timeout -s KILL 300 bash "$work/c/$name.cmd" \
        >"$work/c/$name.stdout" 2>"$work/c/$name.stderr" </dev/null)
    code=$?
    ok=1
    if [ -n "${UPDATE:-}" ]; then
        echo "$code" >"$folder/code"
    elif [ "$code" != "$(cat "$folder/code")" ]; then
        echo "--- $name: exit code $code, expected $(cat "$folder/code")"
        ok=0
    fi
    same "$name" stderr || ok=0
    same "$name" stdout || ok=0
    if [ $ok = 1 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    chmod -R u+w "$scratch"
    rm -rf "$scratch"
done
echo "$passed cases as expected, $failed not, $skipped skipped"
[ $failed = 0 ]
