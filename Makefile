# What people and CI do here. Every verb installs what it lacks first; `make setup` does only that.
# Build output goes to ~/.cache/plinth/target unless CARGO_TARGET_DIR is set.
SHELL := /bin/bash
E := .ci/env
N ?= 1000
SEEDS ?= 5000
EXAMPLES ?= 25
ARGS ?=
web_sources := $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -type f -print)

.PHONY: run test test-examples test-web test-rust s3-contract contract clients streams breaking lint web e2e bench kill-loop power-cuts bad-disks fuzz sim openapi setup
.DEFAULT_GOAL := run

run: ## one node on 127.0.0.1:8080 with its data in ./plinth-data (ARGS are passed on)
	@.ci/setup build
	@[ ! -d web/node_modules ] || $(MAKE) --no-print-directory --silent web
	@$(E) bash -c '[ -x "$$CARGO_TARGET_DIR/release/plinth" ] || echo "run: the first build takes a quarter of an hour, most of it RocksDB"'
	@$(E) cargo build --release --locked --bin plinth
	@exec $(E) bash -c 'exec "$$CARGO_TARGET_DIR/release/plinth" serve $(ARGS)'

test: test-examples test-web test-rust s3-contract contract clients streams e2e ## everything that must pass, a kill loop of 20 kills included

test-examples: setup
	cd examples/debian-packages && PYTHONDONTWRITEBYTECODE=1 python3 -m unittest

test-web: setup ## unit tests of the console
	npm --prefix web test

test-rust: setup ## unit, contract, model, end-to-end and fault tests
	$(E) cargo test --locked --workspace

# Against the server that others wrote; `test-rust` runs the same tests against one inside the process.
s3-contract: setup ## the tests of S3 on MinIO, which Go 1.24 compiles once in 2 to 5 minutes; left out without Go
	.ci/s3-server --if-possible $(E) cargo test --locked --workspace --test store_contract --test it -- s3

contract: setup ## schemathesis against a node, EXAMPLES per operation; SEED is 1 when not set
	$(E) cargo build --locked --bin plinth
	$(E) bash -c 'tests/contract/run.py "$$CARGO_TARGET_DIR/debug/plinth" "$$TOOLS/schemathesis/bin/schemathesis" --checks all --seed $${SEED:-1} --max-examples $(EXAMPLES)'

clients: setup ## TypeScript, Python and Go clients, generated from the OpenAPI document, compiled and used on a node
	$(E) cargo build --locked --bin plinth
	$(E) bash -c 'tests/contract/clients/run.py "$$CARGO_TARGET_DIR/debug/plinth" "$$TOOLS"'

streams: setup ## the public conformance suite of Durable Streams against three nodes; with DS_REPO=<its clone> what is not published, too
	$(E) cargo build --locked --bin plinth
	$(E) npm --prefix tests/streams test

breaking: setup ## whether clients of the document that was promised last still work; `.ci/breaking accept` promises the one of now
	$(E) .ci/breaking

e2e: setup web ## the console and the chats of examples/chat in a real browser
	$(E) cargo build --locked --bin plinth
	$(E) npm --prefix web run e2e

lint: setup ## format, clippy, licences and sources of dependencies, types of the console
	$(E) cargo fmt --all --check
	$(E) cargo clippy --locked --workspace --all-targets -- -D warnings
	$(E) cargo deny --locked --log-level error check bans licenses sources
	$(E) .ci/breaking
	npm --prefix web run check
	npm --prefix web run lint

web: web/dist/index.html ## the console's page, which the next cargo build embeds

web/dist/index.html: $(web_sources)
	@.ci/setup build
	npm --prefix web run build
	@touch src/console.rs # files that were not there when it was compiled do not make cargo look again

bench: setup ## the benchmark; JSON on standard output (ARGS are passed on)
	$(E) cargo run --locked --release --bin plinth -- bench $(ARGS)

kill-loop: setup ## kill -9 at random N times, audit after each
	PLINTH_KILLS=$(N) $(E) cargo test --locked --test it kill_loop -- --nocapture

power-cuts: setup ## the same with N power cuts, on a disk of its own; for root
	PLINTH_KILLS=$(N) $(E) cargo test --locked --test it disks::nothing -- --nocapture

bad-disks: setup ## the same with N kills, while the cache disk is full or read-only at times; for root
	PLINTH_KILLS=$(N) $(E) cargo test --locked --test it disks::a_full -- --nocapture

fuzz: setup ## N thousand inputs for each parser; N seeds of garbage over raw sockets, HTTP and WebSocket (SEED is the first)
	BOLERO_RANDOM_ITERATIONS=$$((1000 * $(N))) $(E) cargo test --locked --lib fuzz::
	PLINTH_FUZZ_SEEDS=$(N) PLINTH_TEST_SEED=$${SEED:-$$RANDOM} $(E) cargo test --locked --test it abuse:: -- --nocapture

sim: setup ## SEEDS simulated histories of the log core, from SEED on
	PLINTH_SIM_SEEDS=$(SEEDS) $(E) cargo test --locked -p plinth-sim every_promise -- --nocapture

openapi: ## write the generated documents in openapi/, and the console's types from them
	UPDATE=1 $(E) cargo test --locked --test it openapi::
	npm --prefix web run types

setup: ## install what is missing for all of the above
	@.ci/setup test
