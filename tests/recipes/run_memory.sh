#!/bin/bash
# The peak that is planned before step 0 against the anonymous memory that is measured: within 3 %. A
# small shape here; all of bench/memory.sh, minutes long, with PEFT_LONG=1 or tools/check-long.sh.
set -u
if grep -qa -e __asan_init -e __tsan_init "$PEFT"; then
    echo "skipped: a sanitizer takes memory of its own"
    exit 77
fi
if [ -n "${PEFT_LONG:-}" ]; then
    exec bash "$SOURCE_DIR/bench/memory.sh"
fi
exec bash "$SOURCE_DIR/bench/memory.sh" --quick
