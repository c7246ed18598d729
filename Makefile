# Two commands are all a fresh machine needs: `make serve` and `make test`.
PYTHON ?= python3
VENV := .venv
# Processes that run the tests, each with a PostgreSQL of its own.
JOBS ?= 2
BIN := $(VENV)/bin

export MOCK_DATA_INTERVAL ?= 250

PAGE := src/klines/page/datafeed.js

BENCH := env -u MOCK_DATA_INTERVAL $(BIN)/python -m bench --keep $(if $(PROFILE),--profile $(PROFILE))

.PHONY: serve test test-faults soak test-clients bench page lock check clean

# Neither needs the page: without Node.js they go on.
serve: $(VENV)/.serve
	-@PAGE_OPTIONAL=1 $(MAKE) --silent --no-print-directory page
	$(BIN)/klines serve

test: $(VENV)/.test
	-@PAGE_OPTIONAL=1 $(MAKE) --silent --no-print-directory page
	env -u MOCK_DATA_INTERVAL $(BIN)/pytest -n $(JOBS) --dist loadfile

# Every fault of the matrix, the long ones too; a line of figures each, also in build/figures.jsonl.
test-faults: $(VENV)/.test
	env -u MOCK_DATA_INTERVAL $(BIN)/pytest -m "fault or slow"

# A service under load and faults for SOAK_MINUTES (20), held against every oracle; SOAK_SEED draws the faults.
soak: $(VENV)/.test
	env -u MOCK_DATA_INTERVAL $(BIN)/python -m tests.soak

# Real clients, each in an environment of its own; those that cannot be installed are named, and skipped.
test-clients: $(VENV)/.test
	$(BIN)/python -m tests.clients.environments
	env -u MOCK_DATA_INTERVAL $(BIN)/pytest -m clients tests/clients

# Benchmarks beside their yardsticks, all or one (`make bench-ingest`); what they find is kept in bench/.
bench: $(VENV)/.bench
	$(BENCH)
	$(BIN)/python -m bench.report

bench-%: $(VENV)/.bench
	$(BENCH) $*
	$(BIN)/python -m bench.report

check: $(VENV)/.test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

# Rewrites the locks from pyproject.toml; needs uv, which nothing else does.
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --extra build --extra tracing pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --extra build --extra tracing --extra test -c requirements.lock pyproject.toml -o requirements-test.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --extra bench -c requirements-test.lock pyproject.toml -o requirements-bench.lock

clean:
	rm -rf $(VENV) $(dir $(PAGE)) frontend/node_modules

# The chart page; without Node.js one line says what is missing, and everything else works.
page: $(PAGE)

$(PAGE): $(wildcard frontend/*.json frontend/*.ts frontend/*.html frontend/src/*) frontend/.npmrc frontend/build.sh
	@sh frontend/build.sh

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "klines needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.test: requirements-test.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-test.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@ $(VENV)/.serve

$(VENV)/.bench: requirements-bench.lock $(VENV)/.test bench/peers/package.json
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bench.lock
	-@npm --prefix bench/peers ci --silent --ignore-scripts
	touch $@
