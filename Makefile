# make train: the first run. make test: everything. make test-fast: those that train nothing and start no program. make test-gpu: the GPU backend. make lint: format, ruff, mypy. make docs: the site.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: install train test test-fast test-gpu lint docs clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"dsa needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

train: install
	$(BIN)/python train.py indexer=h2d32 pattern=local_global

# One thread a process, a process a core: tests are small, and threads that share a core wait for each other. They sleep
# meanwhile in the few tests that start a second one, where by default they would spin and take the core from the first.
# In the order of tests/conftest.py, in which files that take long come first. Each process that collects would compile
# all tests again, and each checked module of src, where an environment forbids Python to keep what it compiled.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses auto --dist loadscope --no-loadscope-reorder

test: install
	$(PYTEST)

test-fast: install
	$(PYTEST) -m "not slow"

# The contract of the ops, kept by Triton's kernels on a CUDA device; tests/ops/contract/test_large.py with long rows.
test-gpu: install
	CONTRACT_DEVICE=cuda CONTRACT_LENGTH=4096 $(BIN)/python -m pytest tests/ops/contract

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) outputs site .pytest_cache .mypy_cache .ruff_cache
