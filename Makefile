# `make bench` and `make test` are all that a newcomer needs: Python and make, no more.
# PYTHON chooses the interpreter that the virtual environment is made with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Compiling each file of torch takes as long as installing it. Python compiles a module when it is first imported, and
# must be allowed to keep it: otherwise each process compiles anew.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
export PYTHONDONTWRITEBYTECODE :=

.PHONY: bench test lint format types wheel clean

bench: $(VENV)/.installed
	$(BIN)/robust-tin bench --models all --eps 0.0,0.01,0.03

# One thread a worker: two workers on two cores would otherwise fight over them.
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/check_imports.py

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-test
	$(BIN)/mypy -p robustbench_tin

wheel: $(VENV)/.installed-test
	$(BIN)/python -m build --outdir dist .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The stamps make the second call quick: the package is editable, so only its dependencies can be stale.
$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/.installed
