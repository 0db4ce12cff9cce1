# Two commands do everything on a fresh machine: `make bench` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
export HF_HUB_OFFLINE = 1

.PHONY: help env lint types unit test bench clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

env: $(STAMP) ## make .venv from pyproject.toml

# One resolver run chooses torch and torchvision together: a pair of different builds does not import.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

lint: $(STAMP) ## ruff: style and formatting
	$(BIN)/ruff check riszoo tests benchmarks
	$(BIN)/ruff format --check riszoo tests benchmarks

types: $(STAMP) ## mypy --strict on the package
	$(BIN)/mypy

unit: $(STAMP) ## the tests alone
	$(BIN)/python -m pytest -n 2 --dist worksteal

test: lint types unit ## lint, types, tests

bench: $(STAMP) ## train and test every recipe on the embedded set; tables, plots, report. OPTIONS='--budget 6400'
	$(BIN)/riszoo bench $(OPTIONS)

clean: ## remove the environment and caches; runs are kept
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache
