# Everything that a fresh Debian needs is installed by these targets; see README.md.

PYTHON ?= /usr/bin/python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: run test check unit clean

run: $(VENV)/run
	$(BIN)/openclaw-gateway run

test: check unit

check: $(VENV)/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

unit: $(VENV)/test
	$(BIN)/pytest

# What systemd-python is built from, and a virtual environment to put it in.
$(VENV)/run: setup.cfg pyproject.toml
	packaging/need gcc pkg-config libsystemd-dev python3-dev python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/test: $(VENV)/run
	$(BIN)/pip install --quiet --editable .[test]
	touch $@

clean:
	rm -rf $(VENV) build dist daemon/*.egg-info .mypy_cache .pytest_cache .ruff_cache
