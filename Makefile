# Interleaf: everything is reachable from here. `make help` lists the targets.

CARGO ?= cargo
DEMO_DIR ?= demo-data
PREFIX ?= /usr/local
DESTDIR ?=
SOAK_SECONDS ?= 60
FDB_SOAK_SECONDS ?= 300

.PHONY: help deps test-deps build test lint fmt bench bench-fdb soak demo install clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Install what the machine lacks (as root; else print the line to run)
	@scripts/deps.sh build

test-deps:
	@scripts/deps.sh test

build: deps ## Build the server and the two libraries into target/release
	$(CARGO) build --release --locked

demo: build $(DEMO_DIR)/csv/flights.csv ## Show what Interleaf is for, on real data, in about a minute
	target/release/interleaf demo --dir $(DEMO_DIR)

$(DEMO_DIR)/csv/flights.csv:
	@scripts/demo-data.sh $(DEMO_DIR)/csv

test: test-deps ## Run all tests, as CI does
	@scripts/test.py

lint: deps ## Formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

bench: deps ## Measure against plain SQLite in the same run
	$(CARGO) build --release --locked -p interleaf -p interleaf-ext -p interleaf-bench
	target/release/interleaf-bench

bench-fdb: deps ## Measure on FoundationDB against its own floor in the same run
	$(CARGO) build --release --locked -p interleaf -p interleaf-bench
	target/release/interleaf-bench --fdb

soak: deps ## A minute of random transfers with kills; five on FoundationDB in trouble, where found
	$(CARGO) build --release --locked -p interleaf -p interleaf-ext -p interleaf-preload
	INTERLEAF_SOAK_SECONDS=$(SOAK_SECONDS) \
	    $(CARGO) test --release --locked -p interleaf-tests --test soak -- --nocapture
	INTERLEAF_SOAK_SECONDS=$(FDB_SOAK_SECONDS) \
	    $(CARGO) test --release --locked -p interleaf-tests --test nodes -- soak --nocapture

install: build ## Install below PREFIX (default /usr/local)
	install -D -m 755 target/release/interleaf $(DESTDIR)$(PREFIX)/bin/interleaf
	install -D -m 755 target/release/libinterleaf.so $(DESTDIR)$(PREFIX)/lib/interleaf/libinterleaf.so
	install -D -m 755 target/release/libinterleaf_preload.so $(DESTDIR)$(PREFIX)/lib/interleaf/libinterleaf_preload.so

clean: ## Remove what was built and the demo's data
	$(CARGO) clean
	rm -rf $(DEMO_DIR)
