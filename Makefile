# make demo    a real comparison, offline: creates .venv, installs, prints the table and the path of the page
# make test    the tests
# `make help` lists the rest. PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Made last, so that an install cut short is begun again; older than what it was made from, it is out of date.
STAMP  := $(VENV)/.installed

.PHONY: help demo test test-slow test-slurm test-ray bench bench-gpu check check-deps venv wheel clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(STAMP) ## run the demo: five methods, two seeds, a table and a page in ./demo-study
	@$(BIN)/adaptlab demo

test: $(STAMP) ## run the tests, but for those that take long or need a cluster
	@$(BIN)/python -m pytest -n 2 -m "not slow and not slurm and not ray"

test-slow: $(STAMP) ## run the tests that take long
	@$(BIN)/python -m pytest -n 2 -m "slow and not slurm and not ray"

test-slurm: $(STAMP) ## the Slurm launcher on a real cluster of one node, from Debian's packages (root)
	@command -v slurmctld >/dev/null && command -v munged >/dev/null || \
	  { apt-get update -qq && apt-get install -qq -y --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null; } || \
	  echo "Slurm's packages cannot be installed here: its tests are skipped"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[slurm]'
	@$(BIN)/python -m pytest -m slurm tests/launchers

test-ray: $(STAMP) ## the Ray launcher on a real cluster of this machine
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	@$(BIN)/python -m pytest -m ray tests/launchers

BENCH_SECONDS ?= inf
bench: $(STAMP) ## the engines against Trainer with peft on this CPU, under 30 minutes; BENCH_SECONDS=120 stops early, again goes on
	@$(BIN)/python benchmarks/engines.py cpu --seconds $(BENCH_SECONDS) --results .bench/engines-cpu.jsonl \
	  --markdown docs/benchmarks/engines-cpu.md

BENCH_PARTS ?= roberta-base,opt-125m,t5-base,opt-1.3b,processes,growth
bench-gpu: $(STAMP) ## the same on a GPU, bases of true sizes with random weights; BENCH_PARTS=opt-1.3b for a part
	@$(BIN)/python benchmarks/engines.py gpu --rounds 1 --parts $(BENCH_PARTS) --markdown docs/benchmarks/engines-gpu.md

check: $(STAMP) ## ruff, mypy --strict, who may import whom, how large things may be
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py tests/test_sizes.py

check-deps: $(STAMP) ## known vulnerabilities of what is installed, where an index tells them; docs/dependencies.md is what is installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]' || \
	  echo "pip-audit cannot be installed here"
	@$(BIN)/python .ci/dependencies.py

venv: $(STAMP) ## create .venv with the tested versions (constraints.txt)

wheel: $(STAMP) ## build dist/adaptlab-*.whl
	@rm -rf dist
	@$(BIN)/python -m build --wheel --no-isolation

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "adaptlab needs Python 3.11 or newer and '$(PYTHON)' is not: try 'make $(MAKECMDGOALS) PYTHON=python3.12'."; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON)' cannot create a virtual environment: on Debian and Ubuntu, 'apt install python3-venv' mends that."; exit 1; }
	@echo "Installing adaptlab and the versions of constraints.txt into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
