#!/usr/bin/env bash
# What the libraries export: libpeft.so only peft_, libpeft.a peft_ and pf_. Usage: tools/symbols.sh BUILD_FOLDER
set -euo pipefail
build=${1:?usage: tools/symbols.sh BUILD_FOLDER}
bad=$(nm -D --defined-only "$build/libpeft.so" | awk '{print $3}' | grep -v '^peft_' || true)
if [ -n "$bad" ]; then
    printf 'libpeft.so exports names without peft_:\n%s\n' "$bad" >&2
    exit 1
fi
bad=$(nm -g --defined-only "$build/libpeft.a" 2>/dev/null | awk 'NF == 3 {print $3}' | grep -vE '^(peft_|pf_)' || true)
if [ -n "$bad" ]; then
    printf 'libpeft.a has global names without peft_ or pf_:\n%s\n' "$bad" >&2
    exit 1
fi
echo "symbols: $(nm -D --defined-only "$build/libpeft.so" | wc -l) exported"
