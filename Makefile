# Thin names for cargo commands; `make help` lists them.

.PHONY: help build demo test check bench

help:
	@echo 'make demo        build, then the main job on this machine: coordinator, three agents, three versions (no root)'
	@echo 'make test        all tests; those on real hosts need root and boot Debian systems'
	@echo 'make check       formatting, lints, shell scripts'
	@echo 'make bench       speed and memory; prints figures, asserts none'
	@echo 'make build       release binaries in target/release: consign, consign-agent'

build:
	cargo build --release --locked --bins

demo:
	cargo build --locked --bins --examples
	sh deploy/demo/demo.sh target/debug

test:
	sh tests/hosts/packages.sh
	cargo build --locked --workspace --bins --examples
ifneq ($(shell command -v cargo-nextest),)
	cargo nextest run --no-fail-fast --locked --workspace
else
	cargo test --no-fail-fast --locked --workspace --exclude consign-tests
	cargo test --no-fail-fast --locked -p consign-tests -- --test-threads=1
endif

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	sh tests/hosts/check-scripts.sh

bench:
	cargo build --release --locked --bins
	cargo run --release --locked -p consign-tests --bin bench
