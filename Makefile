# make repro               the whole pipeline with params.yaml as it stands: at first, the embedded data set
# make repro DATA=dir      the same on a folder of videos (TRAIN=, HOLDOUT=, VAL= name its lists, LAYOUT= its layout)
# make repro PRESET=name   with the parameters of a preset, see docs/presets.md; with DATA=dir, on that folder
# make repro DATA=demo     back to the embedded data set
# make study STUDY=table3  a study of studies/, on request: hours, see docs/studies.md
# make check               lint, types, docs and the fast unit tests: under two minutes
# make test                make check, then all other tests
# make docs                the documentation as a site, in site/
# make faults              kill workers, drivers and machines for real, and go on: ten minutes on idle cores
# make mutations           break the method line by line, and see a test fall each time
# make bench-smallest      every benchmark in seconds: do they run; docs/speed.md has what was measured
# What is asked for is written to params.yaml; one that was changed by hand is kept as params.yaml.orig.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
# stages are run by DVC through the shell: they must find this environment's python
export PATH := $(BIN):$(PATH)

.PHONY: repro study study-named check test docs faults mutations bench-smallest setup

setup: $(READY)

$(READY): requirements.lock requirements-torch.lock pyproject.toml
	@echo "Setting up $(VENV): a few minutes, once."
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed; name it: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-torch.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

ASKED := $(if $(PRESET),--preset "$(PRESET)") $(if $(DATA),--data "$(DATA)") $(if $(LAYOUT),--layout "$(LAYOUT)") \
  $(if $(TRAIN),--train "$(TRAIN)") $(if $(HOLDOUT),--holdout "$(HOLDOUT)") $(if $(VAL),--val "$(VAL)") \
  $(if $(PRESET)$(DATA)$(LAYOUT)$(TRAIN)$(HOLDOUT)$(VAL),--write)
# on a cluster the workers are not this machine's
WORKERS := $(if $(RAY_ADDRESS),,$(if $(SSVOS_WORKERS),--workers $(SSVOS_WORKERS)))

# says first what it will do, about how long that takes here, and what it needs
repro: setup
	@ssvos plan $(ASKED) $(WORKERS)
	@dvc repro
	@python -m pipelines.report --summary

STUDIES := $(patsubst studies/%/dvc.yaml,%,$(wildcard studies/*/dvc.yaml))

study: study-named setup
	@cd "studies/$(STUDY)" && dvc repro
	@echo "$(CURDIR)/studies/$(STUDY)/$(STUDY).md"

study-named:
	@$(if $(filter $(STUDY),$(STUDIES)),,echo "Which study? make study STUDY=NAME; there is $(STUDIES)" >&2; exit 2)

PYTEST := python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10 --durations-min=1

check: setup docs
	ruff check .
	ruff format --check .
	mypy
	$(PYTEST) -m fast

test: check
	$(PYTEST) -m "not fast"

docs: setup
	@NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

faults: setup
	SSVOS_FAULTS=1 python -m pytest tests/pipelines/test_faults.py tests/pipelines/test_pipeline.py

mutations: setup
	python tests/mutations.py

bench-smallest: setup
	@for script in benchmarks/bench_*.py; do \
	  echo "$$script"; python $$script --smallest --json $(VENV)/smallest.json > /dev/null || exit 1; done
