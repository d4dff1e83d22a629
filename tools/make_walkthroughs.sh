#!/usr/bin/env bash
# Writes docs/internals/add-a-method.md and add-a-family.md: how one is added, with the whole change of the smallest.
#
#   tools/make_walkthroughs.sh [DIR]      DIR: where the pages go; default docs/internals
set -euo pipefail
root=$(realpath "$(dirname "$0")/..")
out=$(realpath "${1:-$root/docs/internals}")
cd "$root"

whole() { # a new file, as a diff has it
    echo '```diff'
    echo "+++ $1"
    sed 's/^/+/; s/^+$/+/' "$1"
    echo '```'
}
row() { # file, line that is new
    echo '```diff'
    echo "+++ $1"
    grep -B1 -A1 -x "$2" "$1" | sed "s/^/ /; s/^ $2\$/+$2/"
    echo '```'
}

{
    cat <<'EOF'
# To add a family

This page is written by `tools/make_walkthroughs.sh` from the files themselves.

A family is a folder of `src/models/` and a row in `models.def`. It lists its sites when it opens (names as Hugging Face
has them: the files' tensors and everybody's `target_modules` go by them) and emits plain ops through them when it
builds; methods, merging, plans, generation and evaluation come without a line. It knows no method.

1. Read transformers' `configuration_<family>.py` and `modeling_<family>.py`: which keys of config.json change what is
   computed, what they are when they are missing.
2. `open`: read those keys, list the sites. Most decoders are `nn/decoder.h`'s body with other choices; what has a body
   of its own copies `models/gpt2`. A weight that no file has, or a tensor that nobody took, is an error or a warning of
   the machinery, with the nearest names.
3. `build`: emit the ops. `pf_site_block_output` and its kin (nn/site.h) have to be called where a block's branches join
   the stream: bottleneck adapters and ReFT act there.
4. Cases in `tools/parity_cases/<family>.py`, one for each feature of its config, each with how to switch that feature
   off: the script refuses a case that would pass without it. `tools/make_parity_fixtures.py --only <case>` makes the
   fixture, `test_parity` runs it: logits, greedy text, 20 steps of training, the merged folder.
5. `UPDATE_DOCS=1 build/release/tests/test_pages` writes [models.md](../models.md).

The whole change of OLMo 2:

EOF
    whole src/models/olmo2/olmo2.c
    row src/models/models.def 'PF_MODEL(olmo2)'
    whole tools/parity_cases/olmo2.py
} >"$out/add-a-family.md"

{
    cat <<'EOF'
# To add a method

This page is written by `tools/make_walkthroughs.sh` from the files themselves.

A method is a file (or a folder) of `src/peft/` and a row in `methods.def`. It sees sites (nn/site.h), never a model nor
how a weight is stored: it picks sites by name, adds parameters, and hooks into what goes in or comes out. Strictness
about names, files, counting, plans, checkpoints, `modules_to_save`, the configuration reference and the parity tests
come from the row.

1. Read PEFT's `tuners/<method>/` (or AdapterHub's): keys with their defaults, shapes and names of the tensors in the
   file, first weights, what is trained, what may be merged.
2. Its section: rows of a struct, spelled as there; `check_cfg` for rules between keys.
3. `attach`: targets (peft/targets.h), parameters, hooks. Hooks emit ops that exist; a new one goes to `src/ops/` (or
   `ops/derive` for what is made of parameters alone) with a case in the op harness, which checks its gradient.
4. `init`: first weights, a function of the seed and the parameter's name. `merge_weight`, or `no_merge` with the reason
   in words that a user understands.
5. Cases in `tools/method_cases/<method>.py`, on the Llama and on an unlike family, with a start away from the identity.
   `tools/make_method_fixtures.py --only <case>` makes the fixture, `test_methods` runs it: the same logits from the
   same file, ten steps with the same losses, the same adapter at the end, merged = unmerged, resumed = not stopped.
6. `UPDATE_DOCS=1 build/release/tests/test_pages` writes [methods.md](../methods.md); `peft-toolkit config reference`
   writes [config.md](../config.md).

The whole change of HRA, whose kin in `delta/` share targets and files (delta.h):

EOF
    whole src/peft/delta/hra.c
    row src/peft/methods.def 'PF_METHOD(hra)'
    whole tools/method_cases/hra.py
} >"$out/add-a-method.md"
