# Needs Python 3.10 or later with venv, make and git. Everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests and options of `make test`: make test TESTS=tests/unit PYTEST="-k retry"
TESTS ?= tests
PYTEST ?= --numprocesses=auto --dist=worksteal
DEMO ?= examples/demo.py
EXAMPLES ?=
BENCH ?=
CASES ?=
MUTANTS ?=
SWEEP ?=
MODEL ?=
CAPTURES ?=
# Options of `make soak`.
MINUTES ?= 10
SOAK ?=
# Sidekiq for `make companion-check`, `make interop`, `make soak` and `make web-ui`: 7 or 8.
SIDEKIQ ?= $(or $(INTEROP_SIDEKIQ),7)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo examples test test-floor test-newest test-brokers dramatiq-suite cases sweep mutants state-machine fuzz companion companion-check interop soak web-page web-ui captures check format bench dist reproducible audit clean model

help: ## Show this help
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile

# Each target installs what it needs; this takes one run of pip for all of them.
EXTRAS := examples bench cases web-ui release
install: $(VENV)/.installed ## Install what all targets need
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,examples,bench,cases,web-ui,release]'
	@touch $(addprefix $(VENV)/.installed-,$(EXTRAS))

demo: $(VENV)/.installed ## Run a workflow and watch it, with an embedded server
	@$(BIN)/python $(DEMO)

# Files that another example starts have no main, and are left out.
examples: $(VENV)/.installed-examples ## Run every example (EXAMPLES="examples/memory.py")
	@failed=; output=$$(mktemp); \
	for example in $(or $(EXAMPLES),$$(grep -l '^if __name__ == "__main__":' examples/*.py)); do \
	  if $(BIN)/python $$example >$$output 2>&1; then echo "ok      $$example"; \
	  else echo "failed  $$example"; cat $$output; failed=1; fi; \
	done; rm -f $$output; test -z "$$failed"

test: $(VENV)/.installed ## Run the tests (TESTS=..., PYTEST=...)
	@$(BIN)/python -m pytest $(PYTEST) $(TESTS)

# Need redis-server. A missing Python is printed, and the next one is used.
test-floor: $(VENV)/.installed ## Run most tests on the oldest Python and packages, with coverage (PYTEST_FLOOR=...)
	@$(BIN)/python -m tests.release.pythons floor $(PYTEST_FLOOR)

test-newest: $(VENV)/.installed ## Run most tests on the newest Python and packages (PYTEST_NEWEST=...)
	@$(BIN)/python -m tests.release.pythons newest $(PYTEST_NEWEST)

test-brokers: $(VENV)/.installed ## Run the tests of other brokers, with a real RabbitMQ (needs rabbitmq-server)
	@DSF_TEST_BROKERS=rabbitmq $(BIN)/python -m pytest --timeout=300 $(PYTEST_BROKERS) tests/brokers

dramatiq-suite: $(VENV)/.installed ## Run the tests of Dramatiq and dramatiq-workflow, downloaded, on a SidekiqBroker
	@$(BIN)/python -m tests.dramatiq_suite

# Needs redis-server.
cases: $(VENV)/.installed-cases ## Run the scripts of tests/cases, each with its own redis-server (CASES="gevent tenant")
	@$(BIN)/python -m tests.cases $(CASES)

mutants: $(VENV)/.installed ## Break each line that a guarantee depends on, and check that a test fails (MUTANTS="--only gate")
	@$(BIN)/python -m tests.mutants $(MUTANTS)

sweep: $(VENV)/.installed ## Apply seven kinds of fault to each command of a worker (SWEEP="--scenario chain --quick")
	@$(BIN)/python -m tests.sweep $(SWEEP)

companion: $(VENV)/.installed ## Build the single-file companion from the gem, and the gem's copies of package files
	@$(BIN)/python -m interop.companion

# The first use builds the container: a Docker image, or a root file system
# (debootstrap, as root) if no Docker engine answers. Debian may have updated its
# packages, so the versions are printed.
RUBY_VERSIONS = interop/container/run.sh ruby -rsidekiq -e 'puts "Sidekiq " + Sidekiq::VERSION + ", Ruby " + RUBY_VERSION'
companion-check interop soak web-ui: export INTEROP_SIDEKIQ := $(SIDEKIQ)

companion-check: $(VENV)/.installed ## Lint, test and build the companion's gem (Ruby in a container; SIDEKIQ=7 or 8)
	@$(RUBY_VERSIONS)
	@$(BIN)/python -m interop.companion_check

interop: $(VENV)/.installed ## Run the tests of both languages (Ruby in a container; SIDEKIQ=7 or 8)
	@$(RUBY_VERSIONS)
	@$(BIN)/python -m pytest --numprocesses=6 --dist=worksteal $(PYTEST_INTEROP) interop/tests

# Needs redis-server. Each peer takes a quarter of the time that `companion` takes.
soak: $(VENV)/.installed-bench ## Disturb workers of both languages and their Redis for MINUTES=10 (SOAK="--quick")
	@$(BIN)/python -m interop.soak --minutes $(MINUTES) $(SOAK)

# Needs chromium and its driver, and names them if they are missing. Screenshots: build/web-ui.
web-ui: $(VENV)/.installed-web-ui ## Press the buttons of Sidekiq's Web UI (a browser, Ruby in a container; SIDEKIQ=7 or 8)
	@$(RUBY_VERSIONS)
	@$(BIN)/python -m pytest $(PYTEST_WEB_UI) interop/web

# Needs chromium and its driver, and names them if they are missing. Screenshots: build/web-page.
web-page: $(VENV)/.installed-web-ui ## Look at the web page of runs in a browser, and press its buttons
	@$(BIN)/python -m pytest $(PYTEST_WEB_PAGE) interop/web_page

captures: $(VENV)/.installed ## Show what each command prints at 80 and 120 columns (CAPTURES="--only doctor")
	@$(BIN)/python -m tests.captures $(CAPTURES)

model: $(VENV)/.installed ## Explore the states of the protocol, and the faults of the plain gem (MODEL="--deep" takes minutes)
	@$(BIN)/python -m tests.model $(MODEL)

state-machine: $(VENV)/.installed ## Compare the package with the model on a server, with new examples (EXAMPLES=2000)
	@STATE_MACHINE_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/python -m pytest --numprocesses=0 --timeout=0 tests/properties/test_state_machine.py

check: $(VENV)/.installed ## Check style, spelling, types, imports between modules, and the shape of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy --strict dramatiq_sidekiq_flow tests examples interop benchmarks
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.architecture

format: $(VENV)/.installed ## Format the code, and apply automatic fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Ruby peers run where interop/container can be built; JSON and plots: build/bench.
bench: $(VENV)/.installed-bench ## Measure this package and its peers (BENCH="--quick" takes a minute, and checks limits)
	@$(BIN)/python -m benchmarks $(BENCH)

fuzz: $(VENV)/.installed ## Fuzz the decoders with mutated payloads (SECONDS=300); writes build/fuzz.json
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60)

dist: $(VENV)/.installed-release ## Build the sdist and the wheel, install the wheel, and run the README's example with it
	@$(BIN)/python -m tests.release.build
	@$(BIN)/python -m tests.release.installed

reproducible: $(VENV)/.installed-release ## Build the sdist and the wheel twice, and compare their bytes
	@$(BIN)/python -m tests.release.reproducible

audit: $(VENV)/.installed-release ## Check the package's dependencies for known vulnerabilities
	@$(BIN)/python -m tests.release.audit

clean: ## Remove all files that make has created
	rm -rf $(VENV) build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp, since the folder exists before the installation is complete.
$(VENV)/.installed: pyproject.toml setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or later is needed as $(PYTHON), or name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv is missing. Install it, on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/.installed-examples: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[examples]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(VENV)/.installed-cases: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cases]'
	@touch $@

$(VENV)/.installed-web-ui: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[web-ui]'
	@touch $@

$(VENV)/.installed-release: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[release]'
	@touch $@
