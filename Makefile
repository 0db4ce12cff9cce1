# `make bench` and `make test` work on a fresh machine with Python and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
export HF_HUB_OFFLINE = 1

.PHONY: help env lint types unit test test-cpus docs bench photos chaos soak fuzz test-floors clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

env: $(STAMP) ## create .venv with the dependencies of pyproject.toml

# torch and torchvision are installed together: builds that do not match fail at import.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

lint: $(STAMP) ## check style and formatting with ruff
	$(BIN)/ruff check riszoo tests benchmarks
	$(BIN)/ruff format --check riszoo tests benchmarks

types: $(STAMP) ## check the types of the package with mypy --strict
	$(BIN)/mypy

unit: $(STAMP) ## run the tests only
	$(BIN)/python -m pytest -n 2 --dist worksteal

test: lint types unit ## run lint, types and unit

# The kernels of older processors, and of two threads: results must not depend on either.
test-cpus: $(STAMP) ## run the tests with the instruction sets of four kinds of processor
	ATEN_CPU_CAPABILITY=default RISZOO_TEST_THREADS=2 $(MAKE) unit
	ATEN_CPU_CAPABILITY=avx2 $(MAKE) unit
	DNNL_MAX_CPU_ISA=SSE41 $(MAKE) unit
	ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41 RISZOO_TEST_THREADS=2 $(MAKE) unit

docs: $(STAMP) ## build the documentation site in site/ (OPTIONS=serve to read it while writing)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(or $(OPTIONS),build) --strict

bench: $(STAMP) ## train and test lts, risam and vipa on the embedded data set; tables, plots, report (OPTIONS='--budget 6400')
	$(BIN)/riszoo bench --models lts,risam,vipa $(OPTIONS)

photos: $(STAMP) ## train and test lts, risam and vipa on photographic collages, from pretrained and from random weights
	mkdir -p runs
	$(BIN)/riszoo data show collage --split val --out runs/collage-val.png
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/photos.txt
	$(BIN)/riszoo bench --data collage --scale photo --models lts,risam,vipa $(OPTIONS)
	$(BIN)/riszoo bench --data collage --scale photo-random --models lts,risam,vipa $(OPTIONS)

test-floors: $(STAMP) ## run the quick tests with the lowest allowed version of each dependency
	$(PYTHON) -m venv .venv-floors
	$(BIN)/python -m tests.reliability.floors > .venv-floors/constraints.txt
	.venv-floors/bin/python -m pip install --quiet -e '.[dev]' -c .venv-floors/constraints.txt
	.venv-floors/bin/python -m pytest tests/data tests/metrics tests/encoders tests/models

chaos: $(STAMP) ## kill a tiny training 50 times and compare its weights; lose one of two processes (KILLS=50)
	$(BIN)/python -m tests.reliability.chaos --kills $(or $(KILLS),50) --processes

fuzz: $(STAMP) ## read mutated files for 10 minutes; fails on anything but a user error (MINUTES=10)
	$(BIN)/python -m tests.reliability.fuzz --minutes $(or $(MINUTES),10)

soak: $(STAMP) ## train, test and segment for 30 minutes; fails where memory or open files grow (MINUTES=30)
	$(BIN)/python -m tests.reliability.soak --minutes $(or $(MINUTES),30)

clean: ## remove the environment and caches; keep runs
	rm -rf $(VENV) .venv-floors build dist site *.egg-info .mypy_cache .ruff_cache
