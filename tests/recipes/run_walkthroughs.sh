#!/bin/bash
# docs/internals/add-a-method.md and add-a-family.md show the files as they are.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$SOURCE_DIR/tools/make_walkthroughs.sh" "$work" || exit 1
for page in add-a-method add-a-family; do
    cmp "$work/$page.md" "$SOURCE_DIR/docs/internals/$page.md" ||
        { echo "FAILED: run tools/make_walkthroughs.sh: docs/internals/$page.md is not what the files say"; exit 1; }
done
