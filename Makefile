# weir: the two commands that matter are `make demo` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help demo test bench bench-ovs ablation build lint clean sweep

CARGO ?= cargo

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the NAT example between two network namespaces (without root: on a capture)
	@tools/demo

test: ## everything: unit, property, golden, namespace and documentation tests
	tools/setup test
	$(CARGO) test --doc --workspace
	$(CARGO) build --workspace --bins
	$(CARGO) nextest run --workspace $(shell [ "$$(id -u)" -eq 0 ] || echo --profile unprivileged)

bench: ## cycles a packet, by traffic and connections (root, hugepages, some 15 minutes; perf/bench --quick)
	@perf/bench

bench-ovs: ## cycles a packet, of weir and of Open vSwitch in turn (root, hugepages, some 4 minutes)
	@perf/bench-ovs

ablation: ## what prefetching, trajectories and bursts are worth (root, hugepages, some 10 minutes)
	@perf/ablation

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
