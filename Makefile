# Everything on a fresh machine: `make demo` runs the main job, `make test` runs all checks.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m

.PHONY: demo test lint types layers pytest clean

demo: .venv-demo/ready
	.venv-demo/bin/hermes-edge demo

test: lint types layers pytest

lint: $(VENV)/ready
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(VENV)/bin/hadolint Dockerfile.jetson

types: $(VENV)/ready
	$(RUN) mypy

layers: $(VENV)/ready
	$(VENV)/bin/lint-imports

pytest: $(VENV)/ready
	$(RUN) pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The lean install: no torch.
.venv-demo/ready: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/pip install --quiet --editable '.[cpu]'
	touch $@

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-demo build dist *.egg-info
