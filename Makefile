# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
TEST_VENV := .venv-test
BIN := $(TEST_VENV)/bin
WORKERS ?= 2
PYTEST_ARGS ?=
DEMO_ARGS ?=
UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header $(UPGRADE)

export PYTHON MAKECMDGOALS
# Images for containers often forbid bytecode; every process would then compile torch and transformers anew, 10 s each.
unexport PYTHONDONTWRITEBYTECODE
# Two test processes share two cores: numerical libraries must not start threads of their own.
export OMP_NUM_THREADS ?= 1

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

# An environment is brought up to date when its requirements or the project's metadata change.
# $(VENV) is also where `pulumi up` runs the programs (Pulumi.yaml): the base is enough for that.
$(VENV)/.ready: requirements/demo.txt requirements/uv.txt pyproject.toml scripts/venv.sh
	@scripts/venv.sh $(VENV) demo
	@touch $@

$(VENV)/.base: requirements/base.txt pyproject.toml scripts/venv.sh
	@scripts/venv.sh $(VENV) base
	@touch $@

$(TEST_VENV)/.ready: requirements/test.txt requirements/uv.txt pyproject.toml scripts/venv.sh
	@scripts/venv.sh $(TEST_VENV) test
	@touch $@

.PHONY: demo
demo: $(VENV)/.ready ## The whole story on this machine with no account: need, machine, bill, serve, tune, report, gone
	@exec $(VENV)/bin/python scripts/demo.py $(DEMO_ARGS)

.PHONY: base
base: $(VENV)/.base ## The base alone into $(VENV), without torch: what sizes, plans, prices and `pulumi up` need

.PHONY: test
test: lint ## Everything that must hold: formatting, lint, types, tests
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

.PHONY: test-slow
test-slow: $(TEST_VENV)/.ready .venv-checkov/.ready ## The slower proofs that `make test` leaves out
	$(BIN)/pytest -m slow -n $(WORKERS) --dist loadscope $(PYTEST_ARGS)

# checkov pins older libraries than the tests need: it has an environment of its own.
.venv-checkov/.ready: requirements/checkov.txt $(TEST_VENV)/.ready
	@$(BIN)/python -m venv .venv-checkov
	@$(BIN)/uv pip install --quiet --python .venv-checkov/bin/python --require-hashes --requirement $<
	@touch $@

.PHONY: security
security: .venv-checkov/.ready ## The resources of every stack against checkov's AWS checks
	$(BIN)/pytest -m slow tests/infra/test_infra_checkov.py $(PYTEST_ARGS)

.PHONY: lint
lint: $(TEST_VENV)/.ready ## Formatting, lint and types, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: format
format: $(TEST_VENV)/.ready ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: docs
docs: $(TEST_VENV)/.ready ## Write the generated pages: commands, settings, the README's outputs
	$(BIN)/python scripts/settings_reference.py
	$(BIN)/python scripts/commands_reference.py
	$(BIN)/python scripts/json_reference.py
	$(BIN)/python -m scripts.architecture_page
	$(BIN)/python scripts/readme_outputs.py
	$(BIN)/python -m scripts.docs_outputs
	$(BIN)/python -m scripts.guide --fast

.PHONY: golden
golden: $(TEST_VENV)/.ready ## Write the planned resources of every stack into tests/infra/golden
	$(BIN)/python scripts/golden_plans.py

.PHONY: bench
bench: $(TEST_VENV)/.ready ## Time the commands against their bounds (BENCH_ARGS=--check fails when one is missed)
	@$(BIN)/python scripts/bench.py $(BENCH_ARGS)

.PHONY: bench-serving
bench-serving: $(TEST_VENV)/.ready ## Ratios of the handler to plain generate and to LMI's own handler: writes docs/serving_ratios.csv
	@$(BIN)/python scripts/bench_serving.py $(BENCH_ARGS)

.PHONY: bench-training
bench-training: $(TEST_VENV)/.ready ## Step time of a fine-tune beside a bare Trainer
	@$(BIN)/python scripts/bench_training.py $(BENCH_ARGS)

.PHONY: accuracy
accuracy: $(TEST_VENV)/.ready ## Estimates against every published measurement: writes docs/accuracy.md
	$(BIN)/python scripts/accuracy.py
	$(BIN)/python scripts/throughput_accuracy.py
	$(BIN)/python scripts/training_time_accuracy.py
	$(BIN)/python scripts/training_plans_page.py

.PHONY: oracle
oracle: $(TEST_VENV)/.ready ## Estimates against accounting that allocates nothing (meta device, FakeTensorMode)
	$(BIN)/python scripts/oracle_inference.py
	$(BIN)/python scripts/oracle.py
	$(BIN)/python scripts/oracle.py --check

.PHONY: lock
lock: $(TEST_VENV)/.ready ## Pin and hash the requirements (UPGRADE=--upgrade for the newest)
	$(UV_COMPILE) pyproject.toml requirements/build.in --output-file requirements/base.txt
	$(UV_COMPILE) pyproject.toml requirements/build.in --extra runtime --extra sandbox --output-file requirements/demo.txt
	$(UV_COMPILE) pyproject.toml requirements/build.in --extra runtime --extra dev --output-file requirements/test.txt
	$(UV_COMPILE) --python-version 3.11 requirements/uv.in --output-file requirements/uv.txt
	$(UV_COMPILE) --python-version 3.11 requirements/checkov.in --output-file requirements/checkov.txt

.PHONY: clean
clean: ## Remove the environments, caches and build outputs
	rm -rf $(VENV) $(TEST_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
