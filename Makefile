PYTHON ?= .venv/bin/python

# The oldest Optuna that pyproject.toml allows, and the tests of what leans on Optuna.
OLDEST_OPTUNA := $(shell sed -n 's/.*"optuna>=\([0-9.]*\)".*/\1/p' pyproject.toml)
OPTUNA_TESTS := tests/contract/test_storage.py $(addprefix tests/unit/test_,choice_floor.py front.py report_figures.py search.py size_limit.py space.py summary.py) \
  $(addprefix tests/integration/test_,coordination.py earlier_version.py incremental_search.py public_optuna.py several_objectives.py \
  storage_batched.py study.py worker.py)

.PHONY: check docs format test test-fleet test-oldest-optuna

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(dir $(PYTHON))lint-imports

docs:
	$(PYTHON) -m mkdocs build --strict

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

test:
	$(PYTHON) -m pytest -n 2

test-fleet:
	$(PYTHON) -m pytest -n 2 -m fleet

test-oldest-optuna:
	rm -rf build/optuna-oldest
	$(PYTHON) -m pip install --quiet --no-deps --target build/optuna-oldest 'optuna==$(OLDEST_OPTUNA).*'
	PYTHONPATH=$(CURDIR)/build/optuna-oldest $(PYTHON) -m pytest -n 2 $(OPTUNA_TESTS)
