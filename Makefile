# The short way in; CMakePresets.json is the long one.
#   make setup   install the Debian packages that are missing
#   make         build/release/peft-toolkit
#   make demo    train, evaluate, merge and generate with the bundled example
#   make test    build and run every test
#   make bench   rates of the kernels on this machine
#   make bench-peers ARGS="--data DIR"   training beside transformers + peft (PEER_PYTHON names a python that has them);
#                ARGS=--list says what is measured and how long it takes, docs/internals/bench.md how
.PHONY: all configure setup demo test check-long asan format format-check bench bench-peers ci clean

all: configure
	@cmake --build build/release

configure: setup
	@cmake --preset release -Wno-dev > build-config.log 2>&1 || (cat build-config.log; exit 1); rm -f build-config.log

setup:
	@tools/setup.sh

demo: configure
	@cmake --build build/release --target peft-toolkit
	@examples/demo.sh

test: all
	@ctest --test-dir build/release --output-on-failure -j 2

asan: setup
	@cmake --preset dev -Wno-dev > /dev/null && cmake --build build/dev
	@ctest --test-dir build/dev --output-on-failure -j 2 -LE slow

check-long: all
	@tools/check-long.sh

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

format-check:
	@git ls-files '*.c' '*.h' | xargs clang-format --dry-run --Werror

bench: all
	@bench/run.sh

bench-peers: all
	@bench/peers/peers.py $(ARGS)

ci:
	@.ci/run

clean:
	@rm -rf build
