#!/usr/bin/env bash
# Installs the Debian packages that the build and the tests need and that are missing. Nothing else is changed.
set -euo pipefail
packages=(build-essential cmake ninja-build pkg-config libdnnl-dev libyaml-dev libjansson-dev libpcre2-dev
          libutf8proc-dev libcmocka-dev libssl-dev zlib1g-dev)
[ "${1:-}" = "--ci" ] && packages+=(clang clang-format libclang-rt-14-dev llvm valgrind)
missing=()
for p in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q "install ok installed" || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
    echo "setup: please install: ${missing[*]}" >&2
    exit 1
fi
echo "setup: installing ${missing[*]}" >&2
sudo=""
[ "$(id -u)" -ne 0 ] && sudo="sudo"
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
