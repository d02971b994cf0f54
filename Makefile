# What a reader, a tinkerer or a maintainer of this study types; `make help` lists it.

PROFILE ?= quick
PIP_ARGS ?=
PARAMS ?=
LAB_ARGS ?=
# A Dask scheduler's address, such as tcp://host:8786, for `make reproduce` to train on
CLUSTER ?=
# What `make reproduce` times of the kernels: quick takes a minute, full ten
BENCH ?= quick
# The Pythons of `make versions`, and where it and `make floor` make environments, up to 6 GB each
VERSIONS ?= 3.12 3.13
FOLDER ?= .
# The first of these that is recent enough makes .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)

PROFILES := smoke quick evening paper
ifeq ($(filter $(PROFILES),$(PROFILE)),)
$(error Unknown profile '$(PROFILE)': choose one of smoke, quick, evening, paper)
endif

# An active virtual or conda environment (but conda's base) is used; without one, .venv is made
ACTIVE := $(VIRTUAL_ENV)
ifeq ($(ACTIVE),)
ifneq ($(CONDA_DEFAULT_ENV),base)
ACTIVE := $(CONDA_PREFIX)
endif
endif
ENVIRONMENT := $(or $(ACTIVE),.venv)
PY := $(ENVIRONMENT)/bin/python
SETUP_PYTHON = $(if $(ACTIVE),$(PY),$(PYTHON))

# Jupyter needs a home, which a user without a name, as in a container, may lack
ifeq ($(HOME),)
export HOME := $(CURDIR)/build/home
endif

# This checkout's bnnlib, even where another one is installed
export PYTHONPATH := $(CURDIR)
export PIP_ARGS

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help env data reproduce render results compare test test-long versions floor lint lab bench clean

help: ## this list
	@echo "make TARGET [PROFILE=$(PROFILES)], quick by default"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9%-]+:.*## / { sub("%", "04", $$1); printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

reproduce: env ## retrain, time and execute all into results/local; resumes when repeated; BENCH=full times longer
	@"$(PY)" -m tools.reproduce reproduce --profile "$(PROFILE)" --bench "$(BENCH)" $(if $(CLUSTER),--cluster "$(CLUSTER)")

render: env ## redraw every notebook from the committed runs into results/local, without training
	@"$(PY)" -m tools.reproduce render --profile "$(PROFILE)"

nb-%: env ## retrain and execute one notebook; PARAMS="-p seeds 5" changes its parameters
	@"$(PY)" -m tools.reproduce reproduce --profile "$(PROFILE)" --only $* --bench "$(BENCH)" $(PARAMS)

results: env ## maintainers: as reproduce, from a clean tree, into the committed results and the README
	@"$(PY)" -m tools.reproduce results --profile "$(PROFILE)"

compare: env ## show results/local beside the committed results: what is noise and what is not
	@"$(PY)" -m tools.compare --profile "$(PROFILE)"

test: lint ## check the code's style, then run the tests
	@"$(PY)" -m pytest --numprocesses 2 --no-loadscope-reorder

test-long: env ## try every fault and hostile input at length, for hours; writes docs/reliability.md
	@"$(PY)" -m tools.reliability

versions: ## run all tests in .venv-3.12 and .venv-3.13; VERSIONS="3.12" names other Pythons
	@for version in $(VERSIONS); do \
		python$$version -c "" 2>/dev/null || { echo "No Python $$version on PATH that starts."; exit 1; }; \
		folder="$(FOLDER)/.venv-$$version"; \
		"python$$version" tools/setup_env.py "$$folder" || exit 1; \
		"$$folder/bin/python" -m pytest --numprocesses 2 --no-loadscope-reorder || exit 1; \
	done

floor: ## test the least that training needs: in .venv-oldest what pyproject allows, .venv-floor newer
	@for each in 3.11-oldest 3.12-floor; do \
		version="$${each%-*}"; name="$${each#*-}"; folder="$(FOLDER)/.venv-$$name"; \
		python$$version -c "" 2>/dev/null || { echo "No Python $$version on PATH that starts."; exit 1; }; \
		"python$$version" tools/setup_env.py "$$folder" "requirements-$$name.txt" || exit 1; \
		"$$folder/bin/python" -m pytest @tests/floor.txt || exit 1; \
	done

lint: env ## check the style of code and notebooks
	@"$(PY)" -m ruff check .

bench: env ## time training against plain PyTorch; the machine must be quiet
	@"$(PY)" -m benchmarks.bench_training

lab: env ## open the playground, and all notebooks, in JupyterLab; LAB_ARGS="--no-browser" goes to it
	@"$(PY)" -m jupyterlab notebooks/00_playground.ipynb $(LAB_ARGS)

data: env ## fetch and check MNIST and CIFAR-10
	@"$(PY)" -m study.data mnist cifar10

env: ## set up .venv, or the active environment; PIP_ARGS goes to pip, PYTHON makes .venv
	@command -v "$(SETUP_PYTHON)" >/dev/null || { \
		echo "No Python 3.11 to 3.13 found: install one, or name it, as in 'make env PYTHON=python3.12'."; \
		exit 1; }
	@"$(SETUP_PYTHON)" tools/setup_env.py "$(ENVIRONMENT)"

clean: ## remove what was made, but trained runs (build/runs), data and .venv
	@rm -rf results/local .pytest_cache .ruff_cache .hypothesis
	@if [ -d build ]; then find build -mindepth 1 -maxdepth 1 ! -name runs -exec rm -rf {} +; fi
	@if [ -d build/runs ]; then echo "kept: build/runs; remove it to train anew"; fi
