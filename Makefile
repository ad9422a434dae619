PYTHON ?= .venv/bin/python

.PHONY: check format test test-fleet

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(dir $(PYTHON))lint-imports

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

test:
	$(PYTHON) -m pytest -n 2

test-fleet:
	$(PYTHON) -m pytest -n 2 -m fleet
