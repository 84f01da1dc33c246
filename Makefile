# One command a task; `make` alone lists them. Needs GNU make and Python 3.11 or newer, and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV      := .venv
BIN       := $(VENV)/bin
UV        := $(BIN)/uv
INSTALLED := $(VENV)/.installed
DEV_LOCK  := requirements-dev.lock
RUN_LOCK  := requirements.lock

# The first of these that is 3.11 or newer; name another with `make PYTHON=...`. Looked up only when .venv has to be made.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

# Parallel test processes, a file to one of them, so that its gateway is started once; `make test JOBS=0` runs in one process, for a debugger.
# One more than the two cores of a small machine: a fifth of the time tests wait for processes that start and end. tests/conftest.py says the order.
JOBS ?= 3
# More arguments for the program behind demo, serve, test and bench: `make test ARGS="-k split"`.
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install venv demo serve test check check-format check-lint check-types check-imports format load bench bench-peers lock clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with the exact locked versions and the project itself
venv: install ## the same as install

# The stamp is written last: a broken installation is repeated, a finished one is skipped until a lock or the project file changes.
$(INSTALLED): $(DEV_LOCK) pyproject.toml
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed and none was found; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
		echo "making $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear $(VENV) || { echo "make: this Python cannot make environments; on Debian and Ubuntu install python3-venv" >&2; exit 1; }; \
	fi
	@test -x $(UV) || $(BIN)/python -m pip install --quiet 'uv>=0.9,<1' || echo "make: uv could not be installed, going on with pip (slower)" >&2
	@echo "installing the locked versions"
	@if test -x $(UV) && $(UV) pip sync --quiet --require-hashes --python $(BIN)/python $(DEV_LOCK); then :; else \
		echo "make: uv could not install the lock, trying pip (slower)" >&2; \
		$(BIN)/python -m pip install --quiet --require-hashes -r $(DEV_LOCK); \
	fi
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@

demo: $(INSTALLED) ## the whole life cycle on real data
	@$(BIN)/runoff demo $(ARGS)

serve: $(INSTALLED) ## run the gateway with its defaults, state under var/
	@$(BIN)/runoff serve $(ARGS)

test: $(INSTALLED) ## run the tests (ARGS="-k name", JOBS=0 for one process)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS) || { \
	  echo "make: what failed is run once more, alone: a test that passes only then was disturbed by its neighbours, and is to be mended"; \
	  $(BIN)/python -m pytest -n 0 --last-failed --last-failed-no-failures none $(ARGS); }

check: check-format check-lint check-types check-imports ## format, lint, types and import rules, changing nothing

check-format: $(INSTALLED)
	$(BIN)/ruff format --check .
check-lint: $(INSTALLED)
	$(BIN)/ruff check --quiet .
check-types: $(INSTALLED)
	$(BIN)/mypy --no-error-summary
check-imports: $(INSTALLED)
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## rewrite the sources in the one format, with the safe repairs of the linter
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

load: $(INSTALLED) ## callers over REST and gRPC for a running gateway, with a report: SCENARIO=steady, ramp, spike, soak, mixed or labels
	mkdir -p build
	$(BIN)/locust -f loadtests/locustfile.py --headless --users 20 --spawn-rate 20 --scenario $(or $(SCENARIO),steady) --html build/load.html $(ARGS)

bench: $(INSTALLED) ## the benchmarks, side by side in one run
	$(BIN)/python -m loadtests.bench $(ARGS)

# Old locks are removed first: their pins would be taken as preferences. The runtime lock takes its versions from the lock that the tests
# run with. Neither may hold an address, so that each site installs from where it is used to.
RESOLVE = $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header
lock: | $(UV) ## resolve both lock files again
	rm -f $(RUN_LOCK) $(DEV_LOCK)
	$(RESOLVE) --all-extras --output-file $(DEV_LOCK)
	$(RESOLVE) --extra demo --constraints $(DEV_LOCK) --output-file $(RUN_LOCK)
	@if grep -nE '://|^ *--(extra-)?index|^ *--find-links|^xgboost==' $(RUN_LOCK) $(DEV_LOCK); then echo "make: a lock names an address, or xgboost beside xgboost-cpu" >&2; exit 1; fi

$(UV):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'uv>=0.9,<1'

bench-peers: $(INSTALLED) ## side by side with other model servers, each fetched into an environment of its own (1 to 3 GB, once)
	$(BIN)/python -m loadtests.peers $(ARGS)

clean: ## remove caches and build outputs; .venv and var/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis htmlcov .coverage
	find . -path ./$(VENV) -prune -o -path ./var -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)
