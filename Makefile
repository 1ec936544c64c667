# Two commands are all the set-up: `make demo` to see it run, `make test` to check it.
# Both create .venv and install what they need into it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUF := build/buf/node_modules/.bin/buf
BUF_VERSION := 1.75.0
NPM_INSTALL := npm install --fetch-retries=1 --no-fund --no-audit --prefix build/buf
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint types contracts stubs protos pytest docs bench proto format clean help

help:
	@echo "make demo    run a planner and simulated nodes"
	@echo "make test    lint, types, import contracts, stub freshness, tests"
	@echo "make bench   measure solves and the running service"
	@echo "make docs    write docs/metrics.md"
	@echo "make proto   generate the stubs from the .proto files"
	@echo "make format  format the code"
	@echo "make clean   remove what the others have made"

demo: $(VENV)/.server
	@$(BIN)/expertplane demo

test: lint types contracts stubs protos pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports --no-cache

stubs: $(VENV)/.dev
	$(BIN)/python proto/generate.py --check

# buf comes from npm. Where it cannot be had the check is skipped with a notice, but never in CI.
protos:
	@if [ -x $(BUF) ] || $(NPM_INSTALL) @bufbuild/buf@$(BUF_VERSION) >/dev/null 2>&1; then \
		$(BUF) lint proto && $(BUF) format --diff --exit-code proto; \
	elif [ "$(CI)" = true ]; then echo "buf, from npm, is needed to check the protos" >&2; exit 1; \
	else echo "skipped: buf, from npm, is needed to check the protos"; fi

pytest: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

docs: $(VENV)/.dev
	$(BIN)/python -m expertplane_server.telemetry.page > docs/metrics.md

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench

proto: $(VENV)/.dev
	$(BIN)/python proto/generate.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format --quiet

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.server: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing Expertplane into $(VENV); the first time takes a minute or two"
	@$(PIP) --editable '.[server]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing Expertplane and its development tools into $(VENV)"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.server
