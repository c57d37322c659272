# Thin names for cargo commands; `make help` lists them.

.PHONY: help build demo test simulate fuzz mutants soak check bench

help:
	@echo 'make demo        build, then the main job on this machine: coordinator, three agents, three versions (no root)'
	@echo 'make test        all tests; those on real hosts need root and boot Debian systems'
	@echo 'make simulate    attack engine and agent in simulation: SEEDS=n; SEED=n replays one with its trace; BUGS=1 plants bugs'
	@echo 'make fuzz        changes what is read before it is trusted: TARGET=name SECONDS=n SEED=n; TARGET=name INPUT=file replays'
	@echo 'make mutants     plants bugs in the decision and in key loading, and runs the tests against each (needs cargo-mutants)'
	@echo 'make soak        a kill at every crash point, and a thousand each of agent and coordinator; an hour, no root'
	@echo 'make check       formatting, lints, shell scripts, names that the documents give'
	@echo 'make bench       speed and memory; prints figures, asserts none'
	@echo 'make build       release binaries in target/release: consign, consign-agent'

build:
	cargo build --release --locked --bins

demo:
	cargo build --locked --bins --examples
	sh deploy/demo/demo.sh target/debug

test:
	sh tests/hosts/packages.sh
	sh tests/interop/install.sh
	cargo build --locked --workspace --bins --examples
ifneq ($(shell command -v cargo-nextest),)
	cargo nextest run --no-fail-fast --locked --workspace
else
	cargo test --no-fail-fast --locked --workspace --exclude consign-tests
	cargo test --no-fail-fast --locked -p consign-tests -- --test-threads=1
endif

SEEDS ?= 2000
simulate:
	cargo build --locked -p consign-tests --bin simulate
ifdef BUGS
	target/debug/simulate --bugs
else ifdef SEED
	target/debug/simulate --seed $(SEED) $(if $(BUG),--bug $(BUG))
else
	target/debug/simulate --seeds $(SEEDS) $(if $(FIRST),--first $(FIRST)) $(if $(BUG),--bug $(BUG))
endif

TARGET ?= all
SECONDS ?= 60
# Optimized, with the assertions and overflow checks of the dev profile.
FUZZ = --config 'profile.dev.package.consign-common.opt-level=2' --config 'profile.dev.package.consign-fuzz.opt-level=2'
fuzz:
	cargo build --locked $(FUZZ) -p consign-fuzz --bin fuzz
ifdef INPUT
	target/debug/fuzz $(TARGET) --input $(INPUT)
else
	target/debug/fuzz $(TARGET) --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
endif

# Which files: .cargo/mutants.toml.
mutants:
	cargo mutants --package consign-common --jobs 1 --output target
	cargo mutants --package consign-coordinator --jobs 1 --output target/signer -- --lib

soak:
	cargo build --locked --workspace --bins --examples
	CONSIGN_CRASH_POINTS=all CONSIGN_KILL_RUNS=1000 cargo test --locked -p consign-tests --test processes -- \
		--nocapture --test-threads=1 every_crash_point again_and_again

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	sh tests/hosts/check-scripts.sh
	sh tests/docs/check-names.sh

bench:
	cargo build --release --locked --bins
	cargo run --release --locked -p consign-tests --bin bench
