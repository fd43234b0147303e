# Two commands are enough on a fresh machine with Python 3.11+ and make: `make demo` and `make test`.

# The first Python that is new enough; name another with `make PYTHON=...`.
PYTHON ?= $(or $(shell for each in python3 python3.13 python3.12 python3.11; do \
  $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done),python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Containers are often told to keep no bytecode: each of the tests' processes, some thousand, would compile headrace anew.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
# With the extras named in the lock file: older versions of pip look for the newest version of `coverage[toml]` where `coverage` alone is pinned.
COMPILE := $(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes \
  --no-strip-extras --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file requirements.lock

.DEFAULT_GOAL := help
.PHONY: help setup demo dev env test test-all test-docker coverage simulate chaos check lint types imports sizes generated format schemas \
  lock upgrade wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.installed  ## make the virtual environment with the pinned dependencies

# pip checks each hash of the lock file; the project itself is installed in place, and its build backend comes from the lock.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("headrace needs Python 3.11 or later; try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the pinned dependencies into $(VENV) (one or two minutes) ..."
	@$(PIP) install --quiet --require-hashes --requirement requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## the whole system once, on a long conversation
	@$(BIN)/headrace demo

dev: setup  ## broker, engine and gateway in this terminal, until Ctrl-C
	@$(BIN)/headrace dev

# Needs no Python: who has only Docker makes the key of the gateway in docker-compose.yml with it.
HEX := od -An -v -tx1 /dev/urandom -N

env:  ## write an API key for docker compose into .env, if there is none
	@grep -qs '^HEADRACE_API_KEY=.' .env || { umask 077; \
	  printf 'HEADRACE_API_KEY=hr_%s_%s\n' "$$($(HEX) 8 | tr -d ' \n')" "$$($(HEX) 32 | tr -d ' \n')" >> .env; \
	  echo "Wrote a new API key to .env."; }

# Tests wait for brokers and processes more than they compute: three at a time, each with a broker of its own, keep two cores busy.
TEST_PROCESSES ?= 3

test: setup  ## the tests, those on the real broker included, without the long ones
	$(PYTEST) -m "not long" --numprocesses $(TEST_PROCESSES) --dist loadfile

# Two at a time: among the long ones are those that keep a core busy with load.
test-all: setup  ## every test but those in tests/docker: what `make test` runs, and what takes longer
	HYPOTHESIS_PROFILE=explore $(PYTEST) --numprocesses 2 --dist loadfile

test-docker: setup  ## against Redpanda in a container; needs a Docker engine
	$(PYTEST) tests/docker

SEEDS ?= 200

simulate: setup  ## engines in a simulation where everything goes wrong: make simulate SEEDS=1000
	$(BIN)/headrace simulate --seeds $(SEEDS)

MINUTES ?= 5
SEED ?=

chaos: setup  ## engines and brokers as processes that are killed, frozen and restarted: make chaos MINUTES=5
	PYTHONPATH=tests $(BIN)/python -m chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

coverage: setup  ## what `make test` runs, with the branches that it takes; the report is in htmlcov/
	$(PYTEST) -m "not long" --cov --cov-report=term-missing:skip-covered --cov-report=html

check: lint types imports sizes generated  ## style, types, import contracts, sizes, generated files

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports --no-logo

sizes: setup
	$(BIN)/python tools/file_sizes.py

generated: setup
	$(BIN)/headrace schemas --check
	$(BIN)/headrace settings --check docs/configuration.md

format: setup  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: setup  ## write schemas/ and docs/configuration.md from the code
	$(BIN)/headrace schemas
	$(BIN)/headrace settings --write docs/configuration.md

lock: setup  ## write requirements.lock for what pyproject.toml asks for; what is pinned already stays as it is
	$(COMPILE)

upgrade: setup  ## the same, with the newest versions of everything
	$(COMPILE) --upgrade

wheel: setup  ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean:  ## remove what the targets above made
	rm -rf $(VENV) dist build .headrace .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache htmlcov .coverage .coverage.*
