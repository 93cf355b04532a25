# make repro               run the whole pipeline with params.yaml, which initially names the embedded data set
# make repro DATA=dir      run it on a folder of videos (TRAIN=, HOLDOUT=, VAL= name its lists, LAYOUT= its layout)
# make repro PRESET=name   run it with the parameters of a preset, see docs/presets.md; add DATA=dir for a folder
# make repro DATA=demo     run it on the embedded data set again
# make study STUDY=table3  run a study of studies/, which no other target runs: hours, see docs/studies.md
# make check               run lint, types, docs and the fast unit tests: under two minutes
# make test                run make check, then all other tests
# make docs                build the documentation as a site in site/
# make faults              kill real workers, drivers and machines, and check that runs resume: ten minutes on idle cores
# make mutations           break the method line by line, and check that a test fails each time
# make bench-smallest      check in seconds that every benchmark runs; docs/speed.md lists the measurements
# `make repro` writes the requested parameters to params.yaml. It saves a hand-edited file as params.yaml.orig.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
# DVC runs the stages through the shell, which must find this environment's python
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
# with RAY_ADDRESS the cluster provides the workers, so the number for this machine does not apply
WORKERS := $(if $(RAY_ADDRESS),,$(if $(SSVOS_WORKERS),--workers $(SSVOS_WORKERS)))

# `ssvos plan` first prints what the run does, about how long it takes here, and what it needs
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
