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

.PHONY: help setup packages demo test lint test-fast test-crash test-slurm test-presets test-routers test-evictions bench bench-forecast bench-slurm bench-lost bench-paper bench-planner bench-optimum bench-many bench-pack bench-rivals bench-replay clean

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
	@$(PYTEST) --cache-clear $(PARALLEL) || { rc=$$?; ((rc == 1)) && $(PY) -m tools.again .pytest_cache; }

test-fast: setup  ## tests that need neither Slurm nor PostgreSQL
	@$(PYTEST) $(PARALLEL) -m "not slurm and not service"

test-presets: setup  ## presets with their real libraries, evicted and resumed (6 to 8 minutes with making .venv-presets)
	@tools/presets_env.sh
	@COLOC_TEST_PRESETS=1 $(PYTEST) tests/presets

test-routers: setup  ## lists of endpoints in HAProxy, nginx and Prometheus, and readings from the latter (installs them, as root; a minute)
	@tools/setup.sh routers
	@COLOC_TEST_ROUTERS=1 $(PYTEST) tests/act/test_routers.py tests/agent/test_real_prometheus.py

test-evictions: setup  ## 200 evictions on a live Slurm, with kill -9 of colocd and jobs that misbehave
	@COLOC_TEST_EVICTIONS=1 $(PYTEST) -m evictions

test-crash: setup  ## kill -9 of colocd at every write to its store, on a live Slurm, over one node and two (a quarter of an hour on a quiet machine)
	@COLOC_TEST_MATRIX=1 $(PYTEST) -m matrix

test-slurm: setup  ## contract tests on each release of Slurm, through each adapter, as a table (as root; 8 minutes, first time 12)
	@$(PY) -m tools.test_slurm

# these take long or need something more, and have targets of their own
LONG_BENCHES := $(addprefix bench/bench_,forecast.py slurm.py lost.py paper.py planner.py optimum.py pack.py rivals.py replay.py)
BENCH := PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PY)

bench: setup  ## measurements (bench/) that are quick
	@for file in $(filter-out $(LONG_BENCHES),$(wildcard bench/bench_*.py)); do echo "== $$file"; $(BENCH) "$$file"; done

bench-slurm: setup  ## coloc against Slurm's own preemption, 100 reclaims an arm (over an hour)
	@$(BENCH) bench/bench_slurm.py

bench-lost: setup  ## work lost per reclaimed GPU-hour: planned, emergency, Slurm's own preemption (bench-lost.json); 22 minutes
	@$(BENCH) bench/bench_lost.py --json bench-lost.json

bench-paper: setup  ## FlexTopo's experiment with coloc added (bench-paper.json); about five minutes
	@$(BENCH) bench/bench_paper.py --json bench-paper.json

bench-planner: setup  ## times of the planner on up to 12,500 nodes (bench-planner.json)
	@$(BENCH) bench/bench_planner.py --json bench-planner.json

bench-optimum: setup  ## the planner against the proven optimum (bench-optimum.json); installs OR-tools
	@$(PY) -m pip install -q "ortools>=9.10,<10"
	@$(BENCH) bench/bench_optimum.py --json bench-optimum.json

bench-many: setup  ## 64 replicas of four services at once: how near the cheapest plan (bench-many.json)
	@$(BENCH) bench/bench_many.py --json bench-many.json

bench-pack: setup  ## reclaims with and without coloc's placement of batch jobs (bench-pack.json); about ten minutes
	@$(BENCH) bench/bench_pack.py --json bench-pack.json

bench-forecast: setup  ## backtests of the loads in DATA=FOLDER (docs/benchmarks-forecast.md); about 4 minutes
	@$(BENCH) bench/bench_forecast.py "$(DATA)"

bench-rivals: setup  ## forecasters of libraries on the loads in DATA=FOLDER; in an environment of its own
	@test -x $(VENV)/rivals/bin/python || $(PY) -m venv $(VENV)/rivals
	@$(VENV)/rivals/bin/python -m pip install -q -e ".[bench]"
	@PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(VENV)/rivals/bin/python bench/bench_rivals.py "$(DATA)"

bench-replay: setup  ## a week of the loads in DATA=FOLDER in a closed loop (docs/benchmarks-replay.md); minutes
	@$(BENCH) bench/bench_replay.py "$(DATA)" --json bench-replay.json

clean:  ## remove .venv, caches and reports
	rm -rf $(VENV) build dist demo-report.json bench-*.json .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
