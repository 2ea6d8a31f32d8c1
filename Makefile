# Two commands for a fresh machine with Python 3.11 or newer, make and git:
#   make demo   sets up what it needs and makes one shot from real photographs and a clip, into demo/
#   make test   sets up and runs lint, types, import contract and tests
# make conformance runs the official MCP conformance suite against the server, both revisions, and over kills of it.
# make mcpb packs what is committed as a bundle for Claude Desktop.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
BIN := .venv/bin
# A strict editable install does not see new files, so it is repeated when the list of files changes.
ROOMS := server generator schemas
FILES := $(shell find $(ROOMS) -type f -not -name '*.pyc' | sort | cksum | cut -d' ' -f1)
CODE := $(ROOMS) tests examples

.PHONY: demo conformance test lint mcpb clean

demo: .venv/run-$(FILES)
	$(BIN)/dreamontage demo --out demo

conformance: .venv/test-$(FILES)
	PYTHONPATH=tests $(BIN)/python tests/conformance/run.py

test: .venv/test-$(FILES) lint
	$(BIN)/python -m pytest

lint: .venv/test-$(FILES)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.venv/run-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e . --config-settings editable_mode=strict
	rm -f .venv/run-* && touch $@

.venv/test-%: pyproject.toml .venv/run-%
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]' --config-settings editable_mode=strict
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r generator/evaluation/packages.txt
	rm -f .venv/test-* && touch $@

mcpb:
	git archive --format=zip --output=dreamontage.mcpb HEAD manifest.json pyproject.toml README.md LICENSE $(ROOMS)

clean:
	rm -rf .venv build demo *.egg-info *.mcpb
