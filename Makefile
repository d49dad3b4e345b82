# A newcomer needs `make bench` and `make test`, with Python and make installed.
# PYTHON chooses the interpreter for the virtual environment.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Compiling all files of torch takes as long as installing them. Python compiles a module at its first import and must
# be allowed to store the result: otherwise each process compiles again.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
export PYTHONDONTWRITEBYTECODE :=

.PHONY: audit bench test test-lowest lint format types docs pages pictures wheel clean

bench: $(VENV)/.installed
	$(BIN)/robust-tin bench --models all --eps 0.0,0.01,0.03

# One thread for each worker: two workers with more threads would compete for two cores.
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/check_imports.py
	$(BIN)/codespell
	$(BIN)/python tests/check_prose.py

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-test
	$(BIN)/mypy -p robustbench_tin

# The site, in site/; a warning is an error. The variable silences the theme's advice to move to its successor.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The pages that are made from the code, and the README's pictures.
pages: $(VENV)/.installed-test
	$(BIN)/python docs/pages.py

pictures: $(VENV)/.installed-test
	$(BIN)/python docs/pictures.py

# Known vulnerabilities of the installed packages; one line and no failure if the database cannot be reached.
audit: $(VENV)/.installed-test
	$(PIP) pip-audit
	$(BIN)/python tests/audit.py

# The fast tests under the oldest versions that setup.cfg allows, in an environment of its own.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct '.[test]'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest $(or $(PYTEST_ARGS),$(LOWEST))

LOWEST := tests/test_specs.py tests/test_metrics.py tests/test_atomic.py tests/models/test_linear_product.py \
	tests/benchmarks/test_bench.py

wheel: $(VENV)/.installed-test
	$(BIN)/python -m build --outdir dist .

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The stamps make a second call fast: the package is editable, so only its dependencies can be out of date.
$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(VENV)/.installed-test
	$(PIP) --editable '.[docs]'
	touch $@
