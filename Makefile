# Thin over cargo and devcluster; `make` alone lists the targets. The tests start servers of their own.

SHELL := /bin/bash
CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
BIN := $(TARGET)/debug
DIR := .tessera
export CARGO_TARGET_DIR := $(TARGET)

SERVERS ?= auto
DETACH ?=
REPLICAS ?= 1
FRESH ?=
LIMITS ?= local
NAME ?=
USERS ?= 20
TIME ?= 30
HOST ?= http://127.0.0.1:3002,http://127.0.0.1:3012
JOURNEYS ?=
OPEN ?=
RATE ?= 100
LOAD ?=
MOVE ?=
COUNT ?= 200
TARGETS ?=

UP_FLAGS := --servers $(SERVERS) --replicas $(REPLICAS) \
	$(if $(filter 1,$(DETACH)),--detach) $(if $(filter 1,$(FRESH)),--fresh) \
	$(if $(filter production,$(LIMITS)),--production-limits)
LOAD_FLAGS := --host $(HOST) --time $(TIME) $(if $(filter 1,$(OPEN)),--rate $(RATE),--users $(USERS) \
	$(if $(JOURNEYS),--journeys $(JOURNEYS))) $(LOAD)
CLUSTER = $(BIN)/devcluster --dir $(DIR)
FIGURES = $(TARGET)/release/figures
FIGURES_FLAGS = --auth-node $(TARGET)/release/auth-node --write docs/figures.md
TOOLS := .tessera/tools/python/jwt interop/typescript/dist/verify.js .tessera/tools/schemathesis/schemathesis \
	.tessera/tools/otlp/rotel/rotel-agent .tessera/tools/gateways/bin

.DEFAULT_GOAL := help
.PHONY: help build up down status demo demo-move add-shard load tools openapi corpus test check tidy doc licences fuzz bench figures \
	figures-ownership figures-shards release-figures move-trials move-windows fmt \
	kill pause resume start promote logs need-name cluster-tool

help: ## show the targets and variables
	@awk -F ':.*## ' '/^[a-z -]+:.*## / { printf "  %-38s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  SERVERS=auto|fetch|system  where PostgreSQL and Redis come from   DETACH=1  up returns once ready"
	@echo "  REPLICAS=2  synchronous replicas   FRESH=1  wipe data first   LIMITS=production  keep address limits"
	@echo "  USERS=20 TIME=30 HOST=URL,URL  load: users, seconds, nodes   JOURNEYS=login-storm,…  only these"
	@echo "  OPEN=1 RATE=100  load: requests a second on a schedule   LOAD=--…  more: loadtest --help"
	@echo "  MOVE=\"--rate 60 --people 200 --calm 5\"  of demo-move"

build:
	@$(CARGO) build --locked --package auth-node --package devcluster --package shard-router \
		--package token-verifier --bins --example orders

up: build ## start a whole cluster (Ctrl-C ends it)
	@exec $(CLUSTER) up $(UP_FLAGS)

down: cluster-tool ## stop it; data stays in .tessera
	@$(CLUSTER) down

add-shard: cluster-tool ## start one more shard; shardctl add-shard makes it known
	@$(CLUSTER) add-shard

status: cluster-tool ## show its parts
	@$(CLUSTER) status

kill pause resume start promote logs: cluster-tool need-name ## one part: NAME=shard-1-primary
	@$(CLUSTER) $@ $(NAME)

need-name:
	@test -n "$(NAME)" || { echo "say which part: NAME=shard-1-primary (make status lists them)" >&2; exit 2; }

# What is built already is used as it is: hurting a part must not wait for a compiler.
cluster-tool:
	@test -x $(BIN)/devcluster || $(CARGO) build --quiet --locked --package devcluster

demo: build ## walk through the API of a running cluster
	@python3 demo/walk.py http://127.0.0.1:3002 http://127.0.0.1:3012 $(BIN)/examples/orders

demo-move: build ## add a shard under load and move a quarter of the users there and back, on a cluster of its own
	@$(CARGO) build --quiet --locked --package loadtest --package shard-router --bins
	@exec python3 demo/move.py $(BIN) --servers $(SERVERS) $(MOVE)

load: ## virtual users, or OPEN=1 a rate, on a running cluster; report in .tessera/reports
	@$(CARGO) build --quiet --locked --package loadtest --features goose
	@exec $(BIN)/loadtest $(if $(filter 1,$(OPEN)),open,journeys) $(LOAD_FLAGS)

tools: $(TOOLS) ## what the tests use: PyJWT, jose, schemathesis, gateways, rotel

.tessera/tools/python/jwt: interop/python/requirements.txt
	@python3 -m pip install --quiet --require-hashes --upgrade --target .tessera/tools/python -r $<
	@touch $@

interop/typescript/dist/verify.js: interop/typescript/package-lock.json $(wildcard interop/typescript/*.ts)
	@npm ci --silent --no-audit --no-fund --prefix interop/typescript
	@touch $@

# A fresh folder: what an older list brought must not stay beside what this one brings.
.tessera/tools/schemathesis/schemathesis: interop/schemathesis/requirements.txt
	@rm -rf .tessera/tools/schemathesis
	@python3 -m pip install --quiet --require-hashes --target .tessera/tools/schemathesis -r $<
	@touch $@

.tessera/tools/otlp/rotel/rotel-agent: interop/otlp/requirements.txt
	@rm -rf .tessera/tools/otlp
	@python3 -m pip install --quiet --require-hashes --target .tessera/tools/otlp -r $<
	@touch $@

.tessera/tools/gateways/bin: interop/gateways/requirements.txt
	@rm -rf .tessera/tools/gateways
	@python3 -m pip install --quiet --require-hashes --target .tessera/tools/gateways -r $<
	@touch $@

openapi: ## write docs/openapi.json from the code
	@$(CARGO) build --quiet --locked --package auth-node
	@$(BIN)/auth-node openapi > docs/openapi.json

corpus: ## write interop/corpus/tokens.json from the code
	@$(CARGO) run --quiet --locked --package fuzz > interop/corpus/tokens.json.new
	@mv interop/corpus/tokens.json.new interop/corpus/tokens.json

test: build tools ## every test, on clusters of its own
	@$(CARGO) test --workspace --locked

check: ## format, licences, lints, docs, house rules
	@$(CARGO) fmt --all --check
	@$(MAKE) --no-print-directory licences
	@$(CARGO) clippy --workspace --all-targets --locked --quiet -- -D warnings
	@$(CARGO) clippy --package fuzz --features driver --bins --locked --quiet -- -D warnings
	@$(MAKE) --no-print-directory doc tidy

tidy:
	@$(CARGO) test --quiet --locked --package auth-node --test tidy

doc:
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --quiet

licences:
	@python3 scripts/licences.py

fuzz: ## every fuzz target for TIME seconds, or TARGETS="email bearer" (builds a release)
	@python3 scripts/fuzz.py $(TIME) $(TARGETS)

bench: ## criterion over what requests are made of (builds a release)
	@$(CARGO) bench --locked --package benches

figures: release-figures ## server CPU and WAL of every call, on a cluster of its own; writes docs/figures.md (builds a release)
	@$(FIGURES) run $(FIGURES_FLAGS)

figures-ownership: release-figures ## what the check of a row's owner costs at durable commit; writes docs/figures.md (builds a release)
	@$(FIGURES) ownership $(FIGURES_FLAGS)

figures-shards: release-figures ## CPU of an answer with 1 and with 16 shards; writes docs/figures.md (builds a release)
	@$(FIGURES) shards $(FIGURES_FLAGS)

release-figures:
	@$(CARGO) build --release --locked --package auth-node --package devcluster --package benches

move-trials: ## 200 moves under load, then a death at every step, and failovers; goes on where it was stopped (COUNT=200)
	@$(CARGO) build --quiet --locked --package move-trials --package devcluster
	@$(BIN)/move-trials --servers $(SERVERS) moves --count $(COUNT)
	@$(BIN)/move-trials --servers $(SERVERS) crashes
	@$(BIN)/move-trials --servers $(SERVERS) failovers
	@$(BIN)/move-trials report

move-windows: ## how long moves of 64 buckets hold writes up, without and with synchronous standbys; writes docs/figures.md
	@$(CARGO) build --quiet --locked --package move-trials --package devcluster
	@rm -f .tessera/move-windows.jsonl
	@$(BIN)/move-trials --servers $(SERVERS) --rate 300 --replicas 1 windows
	@$(BIN)/move-trials --servers $(SERVERS) --rate 300 --replicas 2 windows --write docs/figures.md

fmt: ## format
	@$(CARGO) fmt --all
