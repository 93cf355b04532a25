# make repro            the whole pipeline on the embedded data set
# make repro DATA=dir   the same on a folder in DAVIS layout (TRAIN=, HOLDOUT=, VAL= name its lists)
# make test             the test suite
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
# stages are run by DVC through the shell: they must find this environment's python
export PATH := $(BIN):$(PATH)

.PHONY: repro test setup

setup: $(READY)

$(READY): requirements.lock requirements-torch.lock pyproject.toml
	@echo "Setting up $(VENV): a few minutes, once."
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed; name it: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-torch.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

repro: setup
ifdef DATA
	@python -m pipelines.plan --data "$(DATA)" $(if $(TRAIN),--train "$(TRAIN)") $(if $(HOLDOUT),--holdout "$(HOLDOUT)") $(if $(VAL),--val "$(VAL)") $(if $(PRESET),--preset "$(PRESET)")
else
	@python -m pipelines.plan
endif
	@dvc repro
	@python -m pipelines.report --summary

test: setup
	python -m pytest
