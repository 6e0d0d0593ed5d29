# Two commands matter: `make demo` and `make test`. Each installs what it needs into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
LOCAL  := PYTHONPATH=deploy $(BIN)/python -m localairflow
# Of the command line only: what the shell exports under this name is about something else.
LAID   := $(if $(filter command,$(origin ENVIRONMENT)),$(if $(ENVIRONMENT),--environment '$(ENVIRONMENT)'))

.DEFAULT_GOAL := help
.PHONY: help demo up down status test system wheel lint format docs bench bench-bus bench-guards bench-steps chaos clean

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/local  ## Start a real Airflow here, run the multi-agent licence audit, show the result, end (ENVIRONMENT=strict: other agents).
	@$(LOCAL) demo $(LAID)

up: $(VENV)/local  ## Start a real Airflow with the example DAGs and leave it running.
	@$(LOCAL) up $(LAID)

down: $(VENV)/local  ## End what `make up` started.
	@$(LOCAL) down

status: $(VENV)/local  ## Say what runs.
	@$(LOCAL) status

test: $(VENV)/dev  ## Unit tests, DAGs run in process, and chaos; three processes share the files, since many tests wait.
	$(BIN)/python -m pytest -m "not system" -n 3 --dist loadfile --no-loadscope-reorder

system: $(VENV)/dev  ## The demo, the event-driven DAG and the SIGKILL tests on a booted Airflow.
	$(BIN)/python -m pytest -m system -p no:randomly

wheel: $(VENV)/dev  ## Build the wheel and test it in an environment of its own, without the source tree.
	$(BIN)/python tests/wheel.py

lint: $(VENV)/dev  ## Style, types and layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy airflow_agentic dags deploy benchmarks docs/reference.py
	$(BIN)/lint-imports --no-logo

format: $(VENV)/dev  ## Rewrite the files in the house style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/dev  ## Write the reference pages in docs/reference/ from the code, and the pictures of workflows from their DAGs.
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/pictures.py

bench: $(VENV)/dev  ## Figures side by side with a peer or the raw limit, in one run.
	$(BIN)/python benchmarks/imports.py
	$(BIN)/python benchmarks/building.py
	$(BIN)/python benchmarks/operators.py

bench-guards: $(VENV)/bench  ## Guards side by side with the raw stores and named peers (GUARDS=--quick).
	$(BIN)/python -m benchmarks.guards $(GUARDS)

bench-bus: $(VENV)/bench  ## The bus side by side with the raw drivers and named peers (BUS=--long, --quick, --airflow).
	$(BIN)/python -m benchmarks.bus $(BUS)

bench-steps: $(VENV)/bench  ## Durable steps side by side with the raw drivers and named peers (STEPS=--quick).
	$(BIN)/python -m benchmarks.steps $(STEPS)

chaos: $(VENV)/dev  ## The proofs in their long form: storms of minutes, whose books are printed.
	CHAOS=long $(BIN)/python -m pytest tests/chaos tests/system/test_drill.py -p no:randomly -s

clean: down  ## Remove what the commands above made.
	rm -rf $(VENV) .airflow .mypy_cache .ruff_cache .pytest_cache .hypothesis dist

# The stamps are remade when the versions or the package's own metadata change.
$(VENV)/pip: constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is too old: Python 3.11 or newer is needed; make PYTHON=/path/to/python"; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --constraint constraints.txt pip
	@touch $@

$(VENV)/local: $(VENV)/pip pyproject.toml
	@echo "Installing Airflow and the provider into $(VENV) (a minute or two, once)"
	@$(PIP) install --quiet --constraint constraints.txt --editable . --group local
	@touch $@

$(VENV)/dev: $(VENV)/local
	@echo "Installing what the tests need"
	@$(PIP) install --quiet --constraint constraints.txt --group test --group lint --group build
	@touch $@

$(VENV)/bench: $(VENV)/dev
	@echo "Installing what the benchmarks compare with"
	@$(PIP) install --quiet --constraint constraints.txt --group bench
	@touch $@
