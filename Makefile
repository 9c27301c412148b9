# `make test` and `make demo` set everything up on a fresh Debian or Ubuntu machine; `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH):/usr/sbin:/sbin
export PYTHONDONTWRITEBYTECODE := 1
# loadfile: the tests of one file share its Slurm cluster or database server
PYTEST := $(PY) -m pytest -q --color=no
PARALLEL := -n 2 --dist loadfile

.PHONY: help setup packages demo test lint test-fast test-crash bench bench-slurm clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

packages:
	@tools/setup.sh packages

$(STAMP): pyproject.toml tools/setup.sh | packages
	@tools/setup.sh venv
	@touch $@

setup: packages $(STAMP)  ## install what is missing: Debian packages (as root), then .venv

demo: setup  ## a throw-away Slurm, one compressed day, a report (demo-report.json); under 4 minutes
	@$(PY) -m demo.run

lint: setup  ## ruff, mypy, import rules
	@ruff check
	@ruff format --check
	@mypy
	@lint-imports

test: lint  ## everything CI runs: lint, then all tests (Slurm and PostgreSQL included)
	@$(PYTEST) $(PARALLEL)

test-fast: setup  ## tests that need neither Slurm nor PostgreSQL
	@$(PYTEST) $(PARALLEL) -m "not slurm and not service"

test-crash: setup  ## kill -9 of colocd at every write to its store, on a live Slurm (about 6 minutes)
	@COLOC_TEST_MATRIX=1 $(PYTEST) -m matrix

bench: setup  ## measurements (bench/)
	@for file in $(filter-out bench/bench_slurm.py,$(wildcard bench/bench_*.py)); do echo "== $$file"; PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PY) "$$file"; done

bench-slurm: setup  ## coloc against Slurm's own preemption, 100 reclaims an arm (over an hour)
	@PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PY) bench/bench_slurm.py

clean:  ## remove .venv, caches and reports
	rm -rf $(VENV) build dist demo-report.json .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
