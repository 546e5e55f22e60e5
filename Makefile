# Every command people type. `make help` lists them.
#
# Set-up is kept in stamp files, so that it runs again when an input changed and not otherwise.
# All paths are relative: the folder may lie anywhere, spaces in its name included.

PYTHON ?= python3
VENV := .venv/bin/python
PIP := $(VENV) -m pip --disable-pip-version-check --quiet
# No environment of the caller leaks in.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

SOAK_SECONDS ?= 600
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench docs soak mutants clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

.venv/.made: tools/bootstrap.py
	@$(PYTHON) tools/bootstrap.py
	@touch $@

.venv/.demo: .venv/.made requirements/demo.txt pyproject.toml
	@echo "setting up .venv (runtime dependencies)"
	@$(PIP) install -r requirements/demo.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/.test: .venv/.demo requirements/test.txt
	@echo "setting up .venv (development tools)"
	@$(PIP) install -r requirements/test.txt
	@touch $@

.venv/.bench: .venv/.test requirements/bench.txt
	@echo "setting up .venv (peers of the benchmarks)"
	@$(PIP) install -r requirements/bench.txt
	@touch $@

.venv/.docs: .venv/.demo requirements/docs.txt
	@echo "setting up .venv (documentation tools)"
	@$(PIP) install -r requirements/docs.txt
	@touch $@

.venv/.engines: .venv/.made tools/engines.py
	@echo "unpacking the engines into .engines/"
	@$(VENV) tools/engines.py etcd redis >/dev/null
	@touch $@

setup: .venv/.test .venv/.engines  ## make .venv with everything, and the engines

demo: .venv/.demo  ## break a cluster under load for 40 s, judge it, write outlast-demo.html
	@.venv/bin/outlast demo

test: setup  ## the whole suite, lint included
	@$(VENV) -m pytest -n 2 -q $(PYTEST_ARGS)

lint: .venv/.test  ## style, types and import contracts
	@$(VENV) tools/lint.py

bench: setup .venv/.bench  ## ours beside the peers: cluster, policies, log, drills, simulation, detection
	@$(VENV) -m benchmarks.replication
	@$(VENV) -m benchmarks.log
	@$(VENV) -m benchmarks.drill
	@$(VENV) -m benchmarks.check --quick
	@$(VENV) -m benchmarks.sim --quick
	@$(VENV) -m benchmarks.protect --quick
	@$(VENV) -m benchmarks.probes
	@$(VENV) -m benchmarks.adaptive
	@$(VENV) -m benchmarks.failover --quick
	@$(VENV) -m benchmarks.detectors --quick
	@$(VENV) -m benchmarks.membership --quick
	@$(VENV) -m benchmarks.health --quick
	@$(VENV) -m benchmarks.health_http --quick
	@$(VENV) -m benchmarks.watchdogs --quick
	@$(VENV) -m benchmarks.supervisor --quick
	@$(VENV) -m benchmarks.pool --quick

docs: .venv/.docs  ## the documentation, into docs/_build/html
	@$(VENV) -m sphinx -n -W -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

soak: setup  ## simulated clusters and memberships, property, recovery and soak tests, for SOAK_SECONDS
	@$(VENV) tools/soak.py --seconds $(SOAK_SECONDS)

mutants: setup  ## plant every known bug into a copy, one by one: the simulator must find each
	@$(VENV) -m tools.mutants

clean:  ## remove everything that make made
	rm -rf .venv .engines docs/_build build dist htmlcov outlast-demo.html .coverage .coverage.* \
	  .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
