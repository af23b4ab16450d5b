# Every target makes its environment itself: the first one on a fresh machine needs Python >= 3.11 and nothing else.
PYTHON ?= python3
ARGS ?=
OUT ?= runs/bench
BIN := .venv/bin
INSTALLED := .venv/.installed
OLDEST := .venv-oldest

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-peers test-oldest lint bench figures gallery clean

help:
	@echo "make demo        the main job on handwritten digits (ARGS=--quick: under a minute)"
	@echo "make test        the test suite; ARGS goes to pytest"
	@echo "make test-fast   without the slow tests"
	@echo "make test-peers  everything that needs no GPU, every member of each peer's families included"
	@echo "make test-oldest make test with the oldest torch that pyproject.toml allows, in $(OLDEST)"
	@echo "make lint        format, lint, types, layers, spelling"
	@echo "make bench       the benchmarks that need nothing made before; results go to OUT=$(OUT)"
	@echo "make figures     recount the zoo's reference figures and print the differences"
	@echo "make gallery     write docs/gallery.md and its pictures from the zoo"
	@echo "make setup       only the environment in .venv (PYTHON=$(PYTHON))"
	@echo "make clean       remove caches and built files; .venv and runs stay"

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "convsmith needs Python >= 3.11, found no '$(PYTHON)'; name one: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "convsmith needs Python >= 3.11, $(PYTHON) is $$($(PYTHON) --version 2>&1); name another one: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

# pip comes first: only 25.3 and later know both --group and --build-constraint.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt --editable '.[all]' --group dev
	@touch $@

setup: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/convsmith demo $(ARGS)

# Two workers on two cores: one thread each.
test test-fast test-peers test-oldest: export OMP_NUM_THREADS := 1

# Each part has workers of its own: what the back ends load (compilers, runtimes, their thread pools) stays in a worker, and
# has ended one in the middle of a later test. With ARGS, which may name tests, it is one call.
define run_tests
$(if $(strip $(ARGS)),$(1)/pytest -n 2 -m "not gpu and not peers" $(ARGS),$(call run_in_parts,$(1)/pytest -n 2 -m "not gpu and not peers"))
endef

define run_in_parts
$(1) tests/contracts tests/deploy
$(1) tests/measure
$(1) tests --ignore=tests/contracts --ignore=tests/deploy --ignore=tests/measure
endef

test: $(INSTALLED)
	$(call run_tests,$(BIN))

# The other packages are the newest that go with it, but for ExecuTorch, whose newest is made for a newer torch.
test-oldest: $(OLDEST)/.installed
	$(call run_tests,$(OLDEST)/bin)

$(OLDEST)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST)/bin/python -m pip install --quiet --group dev --editable '.[photos,onnx,openvino,report,tensorboard]' \
		$$(sed -n 's/^    "\(torch[a-z]*\)>=\([0-9.]*\)".*/\1==\2.*/p' pyproject.toml)
	@touch $@

test-fast: $(INSTALLED)
	$(BIN)/pytest -n 2 -m "not gpu and not peers and not slow" $(ARGS)

test-peers: $(INSTALLED)
	$(BIN)/pytest -n 2 -m "not gpu" $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# A file whose name begins with an underscore is shared by benchmarks and is none itself; some need files made by hand before.
PREPARED := $(addprefix benchmarks/,deploy_speed.py predictor_truth.py predictor_accuracy.py)
bench: $(INSTALLED)
	@set -e; for script in $(filter-out benchmarks/_% $(PREPARED),$(wildcard benchmarks/*.py)); do \
		echo "$$script"; $(BIN)/python $$script --out $(OUT); \
	done

figures: $(INSTALLED)
	$(BIN)/python tests/zoo/figures.py

gallery: $(INSTALLED)
	$(BIN)/python docs/make_gallery.py

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests benchmarks examples -type d -name __pycache__ -prune -exec rm -rf {} +
