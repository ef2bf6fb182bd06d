# tapewick: `make run` shows a moving market, `make test` proves the rest. Both do all their own set-up.
#
#   make run [LIVE=1] [ARGS="--port 0"]   demo (or the live venue) in the foreground
#   make test                             lint, types, layers, web and Python tests
#   make check | bench [NAME=decode] | torture [BUS=nats]   static half of test | speed | 200 kill -9 cycles
#   make cluster BUS=redis|nats|kafka STORE=postgres|timescale [ENGINES=2 GATEWAYS=2 COLLECTORS=2 SCANNERS=2]
#                                         real servers and every role on loopback, in the foreground
#   make dev | stop | logs | clean        page with hot reload | end a run | set-up logs | forget set-up
#   make fresh                            run and test on a bare Debian, without and with compiler and Node (root)

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST_ARGS ?=

# uv reads the system's certificates, as pip of Debian does.
export UV_SYSTEM_CERTS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
# Tests start hundreds of interpreters: without byte code each of them would compile its imports again.
unexport PYTHONDONTWRITEBYTECODE
export npm_config_fund = false
export npm_config_audit = false
export npm_config_update_notifier = false

WEBAPP := src/tapewick/gateways/webapp/index.html
WEB_SOURCES := $(shell find web -type f -not -path '*/node_modules/*' -not -path 'web/dist/*' -not -path 'web/e2e/*' 2>/dev/null)
NATIVE_SOURCES := pyproject.toml $(wildcard CMakeLists.txt) $(shell find src/tapewick/engine/native -type f 2>/dev/null)

.PHONY: run cluster test check bench dev torture fresh stop logs clean setup native web
.DELETE_ON_ERROR:

# Native engine and page are built at the same time.
setup: $(VENV)/.ready
	@$(MAKE) -s --no-print-directory -j2 native web

run: setup
	@$(BIN)/python scripts/run.py $(BIN)/tapewick $(if $(LIVE),serve,demo) $(ARGS)

BUS ?= redis
STORE ?= postgres
ENGINES ?= 2
GATEWAYS ?= 2
COLLECTORS ?= 2
SCANNERS ?= 2

cluster: setup
	-@$(BIN)/python scripts/contracts.py
	@$(BIN)/python scripts/cluster.py --bus $(BUS) --store $(STORE) --engines $(ENGINES) --gateways $(GATEWAYS) \
	  --collectors $(COLLECTORS) --scanners $(SCANNERS) $(ARGS)

test: setup check
	@if [ -f web/package.json ]; then PATH="$$($(BIN)/python scripts/node.py):$$PATH" npm --prefix web test --silent; fi
	-@$(BIN)/python scripts/contracts.py
	@$(BIN)/python scripts/not_run.py
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS) || $(BIN)/python scripts/second_look.py $$? $(PYTEST_ARGS)

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python scripts/check_locks.py

BENCHMARKS := $(filter-out bench/harness.py bench/measured.py,$(wildcard bench/*.py))

bench: setup
	@$(BIN)/python scripts/bench.py $(NAME)

# With BUS given, the roles over that bus alone: the three take an hour and more together.
KILLS ?= 200
TORTURED := $(if $(filter file,$(origin BUS)),tests/fault,tests/fault/roles/test_kills.py -k "double_nothing and $(BUS)")

torture: setup
	TAPEWICK_KILLS=$(KILLS) $(BIN)/python -m pytest $(TORTURED) $(PYTEST_ARGS)

fresh: setup
	CI=true FRESH=all $(BIN)/python -m pytest tests/e2e/test_fresh_machine.py --log-cli-level=info $(PYTEST_ARGS)

dev: setup
	@$(BIN)/tapewick demo --no-open $(ARGS) & server=$$!; trap 'kill $$server 2>/dev/null' EXIT INT TERM; \
	PATH="$$($(BIN)/python scripts/node.py):$$PATH" npm --prefix web run dev

stop:
	@$(PYTHON) scripts/stop.py

logs:
	@for file in logs/*.log; do [ -f "$$file" ] && { echo "== $$file"; tail -n 40 "$$file"; }; done; true

clean: stop
	rm -rf $(VENV) build logs web/node_modules contracts/node_modules src/tapewick/gateways/webapp .mypy_cache .ruff_cache .pytest_cache
	rm -f src/tapewick/engine/*.so

# Python packages: hash-checked, by uv where it can, else by pip.
$(VENV)/.ready: requirements.lock scripts/install.py
	@$(PYTHON) scripts/install.py $(VENV)

# The native engine, or a line that says why the reference engine runs instead.
native: $(VENV)/.ready
	@$(BIN)/python scripts/build_native.py $(NATIVE_SOURCES)

web: $(WEBAPP)

$(WEBAPP): $(WEB_SOURCES) | $(VENV)/.ready
	@$(BIN)/python scripts/build_web.py
