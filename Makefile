# Two commands do everything, set-up included: `make demo` and `make test`. Each target makes what it needs; once that is
# there nothing is downloaded. PYTHON=/path/to/python chooses the interpreter, CC the compiler.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3
CC := $(if $(filter default,$(origin CC)),gcc,$(CC))
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install -q --disable-pip-version-check
JOBS := $(shell nproc 2>/dev/null || echo 2)
FUZZ_ITERATIONS ?= 20000

.PHONY: help
help: ## show this list
	@echo "talkpath: a Trio-based media engine for telephone-call audio"
	@echo
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '%-16s %s\n' "$$name" "$$text"; done

# Set-up.
# Three stamps in the virtual environment, so that a demo does not wait for the test tools.

$(VENV)/made: scripts/check_system.sh
	@python=$$(CC='$(CC)' sh scripts/check_system.sh '$(PYTHON)') && \
		echo "set-up: virtual environment in $(VENV) with $$python" && "$$python" -m venv $(VENV)
	@$(PIP) "setuptools>=77" "cffi>=1.17"
	@touch $@

$(VENV)/runtime: $(VENV)/made pyproject.toml setup.py
	@echo "set-up: talkpath and what it needs at run time (compiles the C core)"
	@$(PIP) --no-build-isolation -e .
	@touch $@

# What an extra of pyproject.toml asks for, without building talkpath once more.
build/requirements-%.txt: pyproject.toml $(VENV)/made
	@mkdir -p build
	@$(RUN) -c 'import sys, tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
		print(*extras[sys.argv[1]], sep="\n")' $* > $@

$(VENV)/test: $(VENV)/runtime build/requirements-test.txt
	@echo "set-up: test tools"
	@$(PIP) -r build/requirements-test.txt
	@touch $@

$(VENV)/bench: $(VENV)/runtime build/requirements-bench.txt
	@echo "set-up: the peers that the benchmarks measure against (optional ones may be missing)"
	@for peer in $$(cat build/requirements-bench.txt); do \
		$(PIP) "$$peer" || echo "set-up: $$peer could not be installed; its rows are left out"; done
	@touch $@

# The editable installation runs the sources in src/; only the extension must follow csrc/.
$(VENV)/native: $(VENV)/runtime $(wildcard csrc/*.c csrc/*.h csrc/*.inc csrc/*.py csrc/tables/*)
	@echo "set-up: native core"
	@mkdir -p build
	@$(RUN) setup.py -q build_ext --inplace --force > build/native.log 2>&1 || { cat build/native.log >&2; exit 1; }
	@touch $@

.PHONY: setup
setup: $(VENV)/native ## make the virtual environment and compile the C core

# The main job.
.PHONY: demo
demo: $(VENV)/native ## play a whole phone call through real loopback sockets (25 s)
	@$(RUN) -m talkpath demo

# Checks.
.PHONY: lint
lint: $(VENV)/test $(VENV)/native ## ruff, mypy, pyright, generated tables
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@if timeout 90 $(VENV)/bin/pyright --version >/dev/null 2>&1; then timeout 300 $(VENV)/bin/pyright --pythonpath $(RUN); \
		else echo "pyright: skipped, it could not be fetched or started here"; fi
	@if [ -f csrc/tables/gen_tables.py ]; then $(RUN) csrc/tables/gen_tables.py --check && $(RUN) csrc/tables/gen_tone_tables.py --check; fi

STRICT := -std=c11 -ffp-contract=off -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Werror
SANITIZE := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
C_FLAGS = $(STRICT) $(SANITIZE) -Icsrc -Icsrc/tables -Itests/c
C_LIB := build/asan/libtalkpath.a
C_OBJECTS := $(patsubst csrc/%.c,build/asan/%.o,$(wildcard csrc/tp_*.c))
C_TESTS := $(patsubst tests/c/%.c,build/asan/%.passed,$(wildcard tests/c/test_*.c))
C_FUZZES := $(patsubst tests/fuzz/%.c,build/asan/%.passed,$(wildcard tests/fuzz/*.c))

build/asan/%.o: csrc/%.c
	@mkdir -p $(@D)
	@$(CC) $(C_FLAGS) -MMD -MP -c -o $@ $<

$(C_LIB): $(C_OBJECTS)
	@rm -f $@
	@$(AR) rcs $@ $(C_OBJECTS)

build/asan/%.passed: tests/c/%.c $(C_LIB)
	@$(CC) $(C_FLAGS) -MMD -MP -MT $@ -MF build/asan/$*.d -o build/asan/$* $< $(C_LIB) -lm -lpthread
	@build/asan/$* && echo "c-test: $* passed"
	@touch $@

build/asan/%.passed: tests/fuzz/%.c $(C_LIB)
	@$(CC) $(C_FLAGS) -DTP_FUZZ_STANDALONE -MMD -MP -MT $@ -MF build/asan/$*.d -o build/asan/$* $< $(C_LIB) -lm -lpthread
	@timeout 120 build/asan/$* $(FUZZ_ITERATIONS) && echo "c-test: $* held (FUZZ_ITERATIONS=$(FUZZ_ITERATIONS))"
	@touch $@

-include $(wildcard build/asan/*.d)

.PHONY: c-test
c-test: ## C tests and bounded fuzzing under ASan and UBSan
	@CC='$(CC)' sh scripts/check_system.sh '$(PYTHON)' >/dev/null
	@$(MAKE) --no-print-directory -j$(JOBS) $(C_TESTS) $(C_FUZZES)

.PHONY: test
test: $(VENV)/test $(VENV)/native ## everything that must hold: lint, C tests, pytest
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory c-test
	@$(RUN) -m pytest

.PHONY: bench
bench: $(VENV)/bench $(VENV)/native ## measure against named peers in the same run; tables on stdout, JSON in build/bench.json
	@$(RUN) -m talkpath bench

# Packages.
.PHONY: wheel
wheel: $(VENV)/made ## build the sdist, and the abi3 wheel from it, into dist/
	@$(PIP) build
	@$(RUN) -m build --no-isolation --outdir dist .

.PHONY: clean
clean: ## remove everything that make made
	rm -rf $(VENV) build dist demo-out src/talkpath/_native.c src/talkpath/_native*.so src/csrc src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
