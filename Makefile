# Every door of the house; `make` alone lists them.
#
# One environment, .venv, in layers: `make run` needs the first, `make bench-report` a third, everything else two. Stamp
# files in it remember what was installed, so a second call does nothing until a lock or pyproject.toml changes.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
WORKERS ?= 3
TESTS ?= tests
ROUNDS ?= 30
NEWEST_TESTS ?= tests/rpc/test_limits.py tests/rpc/test_verify.py tests/rpc/test_tables.py $(NEWEST_CLIENT_TESTS)
NEWEST_CLIENT_TESTS := $(patsubst %,tests/client/test_%.py,verify connection errors retries) tests/fake/test_fake.py
OLDEST_TESTS ?= $(filter-out $(addprefix tests/client/test_,servers.py pytest_plugin.py counting.py examples.py), \
  $(wildcard tests/client/test_*.py)) tests/fake/test_fake.py
REVOCATIONS ?= 60
BENCH ?= --json build/bench.json
GRPCURL := github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4

BIN := .venv/bin
BUF := $(BIN)/buf
IMAGE := protos/released.binpb
CHECKS := check-format check-lint check-locks check-types check-proto check-sync-client check-buf check-breaking

# The locks are complete, so pip has nothing to resolve: --no-deps.
PIP_INSTALL := python -m pip install --quiet --no-input --disable-pip-version-check --no-deps

# Tools that the tests look for (grpcurl) may live in the checkout.
export PATH := $(CURDIR)/.tools/bin:$(PATH)

##@ Use

.PHONY: help run setup
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/run.stamp ## Start keysvc with a PostgreSQL of its own; its data stays in .keysvc/
	@$(BIN)/keysvc serve --data-dir .keysvc

setup: .venv/dev.stamp ## Install everything into .venv (PYTHON=… to choose one)

##@ Change

.PHONY: test test-newest test-oldest test-killed nemesis nemesis-promised nemesis-report model bench bench-report format proto sync-client lock upgrade release-protos grpcurl clean
test: .venv/dev.stamp ## Run the tests (TESTS=… for some of them, WORKERS=… at once)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

test-newest: .venv-newest/stamp ## Some tests with the newest grpcio, protobuf and all else that the metadata allow
	@.venv-newest/bin/python -m pytest -n $(WORKERS) --dist worksteal $(NEWEST_TESTS)

test-oldest: .venv-oldest/stamp ## The client library's tests with the oldest grpcio and protobuf that it declares
	@.venv-oldest/bin/python -m pytest -n $(WORKERS) --dist worksteal $(OLDEST_TESTS)

test-killed: .venv/dev.stamp ## Kill a server under load, ROUNDS times (SEED=… to repeat what an earlier run told)
	@$(BIN)/python -m pytest -n $(WORKERS) -raP tests/process/test_killed.py --rounds=$(ROUNDS) $(SEED:%=--seed=%)

nemesis: .venv/dev.stamp ## Break everything while keys are revoked (REVOCATIONS=… of each fault, FAULTS='a,b', SEED=…)
	@$(BIN)/python -m tests.nemesis --revocations $(REVOCATIONS) $(FAULTS:%=--faults '%') $(SEED:%=--seed %)

nemesis-promised: .venv/dev.stamp ## As often as is promised; takes hours, and goes on where it was interrupted
	@$(BIN)/python -m tests.nemesis --revocations 5000 --quiet 100000 --resume $(FAULTS:%=--faults '%') $(SEED:%=--seed %)

nemesis-report: ## Write docs/nemesis.md and docs/nemesis.json from what the last `make nemesis` found
	@$(BIN)/python -m tests.nemesis --page

model: .venv/dev.stamp ## Explore the lease protocol in larger configurations than the tests do; takes minutes
	@$(BIN)/python -m tests.lease

bench: .venv/dev.stamp ## Measure, with 1 000 000 keys in a PostgreSQL of its own; needs Go (BENCH='--only hot' …; --help)
	@$(BIN)/python -m bench $(BENCH)

bench-report: .venv/bench.stamp ## Write docs/performance.md and its pictures from what the last `make bench` found
	@$(BIN)/python -m bench.report

format: .venv/dev.stamp ## Lay out the code, and repair what the linter can
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

proto: .venv-proto/stamp ## Generate src/keysvc/v1 from protos/
	@.venv-proto/bin/python tools/proto.py write

sync-client: .venv/dev.stamp ## Generate the synchronous client from the asynchronous one
	@$(BIN)/python tools/sync_client.py write

lock: .venv/dev.stamp ## Resolve requirements/*.txt again, keeping the versions that still fit
	@$(BIN)/python tools/locks.py write

upgrade: .venv/dev.stamp ## The same with the newest versions that fit
	@$(BIN)/python tools/locks.py write --upgrade

release-protos: .venv/dev.stamp ## Declare today's contract the one that must not break
	@$(BUF) build --exclude-source-info -o $(IMAGE)

grpcurl: ## Install grpcurl into .tools/bin (needs Go), for the tests that drive it
	@GOBIN='$(CURDIR)/.tools/bin' go install $(GRPCURL)

clean: ## Remove all that was built or installed here, but never the data in .keysvc/
	@rm -rf .venv .venv-proto .venv-newest .venv-oldest .tools build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find src tests tools bench clients -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

##@ Check

.PHONY: check $(CHECKS)
check: $(CHECKS) ## All of the following
	@echo '== all good'

check-format: .venv/dev.stamp ## Is the code laid out as `make format` would?
	@echo '== format' && $(BIN)/ruff format --check --quiet

check-lint: .venv/dev.stamp ## Does the linter object?
	@echo '== lint' && $(BIN)/ruff check --quiet

check-locks: .venv/dev.stamp ## Were the locks made from today's inputs?
	@echo '== locks' && $(BIN)/python tools/locks.py check

check-types: .venv/dev.stamp ## Do the types hold?
	@echo '== types' && $(BIN)/mypy --no-error-summary

check-proto: .venv-proto/stamp ## Is src/keysvc/v1 what the protos generate?
	@echo '== proto' && .venv-proto/bin/python tools/proto.py check

check-sync-client: .venv/dev.stamp ## Is the synchronous client what the asynchronous one gives?
	@echo '== sync client' && $(BIN)/python tools/sync_client.py check

check-buf: .venv/dev.stamp ## Are the protos well-formed and commented?
	@echo '== buf lint' && $(BUF) lint

check-breaking: .venv/dev.stamp ## Does the contract keep every released promise?
	@echo '== buf breaking' && $(BUF) breaking --against $(IMAGE)

# The environments. The folder itself is only looked at (order-only, phony): it is made if missing, and every call
# makes sure that it still works.

.PHONY: .venv .venv-proto .venv-newest .venv-oldest
.venv .venv-proto .venv-newest .venv-oldest:
	@command -v '$(PYTHON)' >/dev/null || { echo 'There is no $(PYTHON): install Python 3.11 or newer.' >&2; exit 1; }
	@'$(PYTHON)' tools/environment.py $@

.venv/run.stamp: requirements/run.txt pyproject.toml | .venv
	@echo 'Installing $< …'
	@$(BIN)/$(PIP_INSTALL) --require-hashes -r $<
	@$(BIN)/$(PIP_INSTALL) --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/run.stamp clients/python/pyproject.toml | .venv
	@echo 'Installing $< …'
	@$(BIN)/$(PIP_INSTALL) --require-hashes -r $<
	@$(BIN)/$(PIP_INSTALL) --no-build-isolation -e clients/python
	@touch $@

.venv/bench.stamp: requirements/bench.txt .venv/dev.stamp | .venv
	@echo 'Installing $< …'
	@$(BIN)/$(PIP_INSTALL) --require-hashes -r $<
	@touch $@

.venv-proto/stamp: requirements/proto.txt | .venv-proto
	@echo 'Installing $< …'
	@.venv-proto/bin/$(PIP_INSTALL) --require-hashes -r $<
	@touch $@

.venv-newest/stamp .venv-oldest/stamp: .venv-%/stamp: requirements/%.txt pyproject.toml clients/python/pyproject.toml | .venv-%
	@echo 'Installing $< …'
	@.venv-$*/bin/$(PIP_INSTALL) --require-hashes -r $<
	@.venv-$*/bin/$(PIP_INSTALL) --no-build-isolation -e . -e clients/python
	@touch $@
