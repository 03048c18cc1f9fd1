# Everything a person does with this project. `make` alone lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

RANKER ?= recommend
PARTITION ?=
RESHELVE := .venv/bin/reshelve
# tests/conftest.py says which tests stay together: those of the platform, which mostly wait, on one of the three.
WORKERS := -n 3 --no-loadscope-reorder
CODE := include/reshelve plugins dags tests benchmarks scripts
# Set-up leaves compiling to the first import. Forbidden, every process of a night would compile TensorFlow again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run night stop status reset clean test test-fast coverage lint format bench bench-train bench-tuning bench-search bench-quality bench-validate bench-roll bench-publish bench-serve bench-releases bench-watch bench-clicks bench-gateway bench-scale docs lock sbom audit

help: ## List these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## Make the environment (.venv); instant when it is there
	@scripts/setup.sh

run: setup ## Start the platform and run one night on the sample data; again: quick and safe
	@$(RESHELVE) platform run --ranker $(RANKER) $(if $(PARTITION),--partition $(PARTITION))

night: setup ## Run the next night of the sample (RANKER=… PARTITION=YYYY-MM-DD: any other)
	@$(RESHELVE) platform night --ranker $(RANKER) $(if $(PARTITION),--partition $(PARTITION))

status: ## Show what runs, and where
	@if [ -x $(RESHELVE) ]; then $(RESHELVE) platform status; else echo "nothing is set up: make setup"; fi

stop: ## Stop everything that `make run` started; its data stays
	@if [ -x $(RESHELVE) ]; then $(RESHELVE) platform down; fi

reset: stop ## Stop, and delete the local data: models, logs, database (.reshelve)
	@scripts/reset.sh

clean: reset ## Reset, and delete the environment (.venv) and the built wheel (.wheels) too
	@rm -rf .venv .wheels .setup.lock .pytest_cache .mypy_cache .ruff_cache .hypothesis include/*.egg-info

test: setup ## Run every test (some 40 minutes on two cores)
	@.venv/bin/pytest $(WORKERS)

test-fast: setup ## Run the tests without a server, a child process or a model (minutes)
	@.venv/bin/pytest $(WORKERS) -m "not slow and not platform"

coverage: setup ## Show by package which lines and branches the tests run (all but those of the platform)
	@rm -rf .coverage .coverage.*
	@.venv/bin/pytest $(WORKERS) -m "not platform" --cov --cov-report=
	@.venv/bin/python scripts/coverage_table.py

lint: setup ## Check style, formatting, types, and that packages import only what lies below them
	@.venv/bin/ruff check $(CODE)
	@.venv/bin/ruff format --check $(CODE)
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache

format: setup ## Format the code
	@.venv/bin/ruff check --fix $(CODE)
	@.venv/bin/ruff format $(CODE)

bench: setup ## Run one benchmark: make bench NAME=package (benchmarks/<NAME>.py)
	@test -f "benchmarks/$(NAME).py" || { echo "make bench NAME=…; there are: $$(cd benchmarks && ls *.py 2>/dev/null | sed 's/\.py$$//' | tr '\n' ' ')" >&2; exit 78; }
	@.venv/bin/python "benchmarks/$(NAME).py" $(ARGS)

bench-quality: setup ## Walk a ranker file night by night: make bench-quality RANKER=recommend FROM=2011-08-24 TO=2011-08-31
	@.venv/bin/python benchmarks/bench_quality.py --ranker "$(RANKER)" --from "$(FROM)" --to "$(TO)" $(ARGS)

bench-train: setup ## Compare fine-tuning with Hugging Face Trainer, and Horovod with DDP
	@.venv/bin/python benchmarks/bench_train.py $(ARGS)

bench-tuning: setup ## Measure tuning beside random search: best score by trial-epochs (some minutes)
	@.venv/bin/python benchmarks/bench_tuning.py $(ARGS)

bench-search: bench-tuning # as it was called

bench-roll: setup ## Roll two releases, a refused canary and a rollback under constant load (some minutes)
	@.venv/bin/python benchmarks/bench_roll.py $(ARGS)

bench-publish: setup ## Publish 200 MB beside s5cmd (ARGS="--s5cmd PATH"), else beside boto3's transfer
	@.venv/bin/python benchmarks/bench_publish.py $(ARGS)

bench-watch: setup ## Count the watch's false alarms on a quiet replay, and how soon planted incidents are found
	@.venv/bin/python benchmarks/bench_watch.py $(ARGS)

bench-clicks: setup ## Count releases that clicks take back by chance, and the sessions until a planted drop is found (half an hour)
	@.venv/bin/python benchmarks/bench_clicks.py $(ARGS)

bench-serve: setup ## Latency of the packaged version beside float32, ONNX Runtime and OpenVINO (ARGS="--peers DIR")
	@.venv/bin/python benchmarks/bench_serve.py $(ARGS)

bench-gateway: setup ## What the gateway's admission costs a request, with and without it in one interleaved run
	@.venv/bin/python benchmarks/bench_gateway.py $(ARGS)

bench-releases: setup ## Time the Releases page with 1,000 versions and 100,000 log entries (some minutes to fill)
	@.venv/bin/python benchmarks/bench_releases.py $(ARGS)

bench-scale: setup ## Tables, versions and answers by products, examples by events, FAISS and bm25s beside (ARGS="--full --peers DIR")
	@.venv/bin/python benchmarks/bench_scale.py $(ARGS)

bench-validate: setup ## Judge a day with planted faults beside plain SQL and pandas: make bench-validate ROWS=1000000
	@.venv/bin/python benchmarks/bench_validate.py $(if $(ROWS),--rows $(ROWS)) $(ARGS)

docs: setup ## Write the reference pages and the index of docs/ anew from the code
	@.venv/bin/python scripts/reference.py

.venv/supply/bin/uv: locks/supply.lock | setup
	@.venv/bin/python -m venv .venv/supply
	@.venv/supply/bin/python -m pip install --quiet --no-deps --require-hashes --only-binary :all: -r locks/supply.lock
	@touch $@

lock: .venv/supply/bin/uv ## Write the lock anew: constraints.txt and locks/ (ARGS="--upgrade-package NAME": with a newer version)
	@.venv/bin/python scripts/lock.py $(ARGS)

sbom: .venv/supply/bin/uv ## Write what the environment is made of to reshelve.cdx.json (CycloneDX)
	@.venv/supply/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o reshelve.cdx.json .venv/bin/python
	@echo "reshelve.cdx.json: what pip installed, and Horovod; not what packages carry inside, nor the system's packages"

audit: setup ## Look the lock up in a vulnerability database: make audit DATABASE=a folder or zip of OSV's JSON
	@.venv/bin/python scripts/audit.py $(DATABASE)
