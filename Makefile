# weir: the two commands that matter are `make demo` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help demo test bench build lint clean sweep

CARGO ?= cargo

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the NAT example between two network namespaces (without root: on a capture)
	@tools/demo

test: ## everything: unit, property, golden, namespace and documentation tests
	tools/setup test
	$(CARGO) test --doc --workspace
	$(CARGO) build --workspace --bins
	$(CARGO) nextest run --workspace $(shell [ "$$(id -u)" -eq 0 ] || echo --profile unprivileged)

bench: ## cycles a packet, beside Open vSwitch's where it is installed (root, hugepages, about a minute)
	@perf/bench

build: ## the program, optimised: target/release/weir
	tools/setup
	$(CARGO) build --release

lint: ## formatting, and clippy with warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

clean: ## what was built
	$(CARGO) clean

sweep: ## namespaces and processes of test runs that were killed
	tools/clean
