# Sets up .venv, trains, tests. `make help` lists the targets; docs in README.md.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup train test test-fast test-core test-sanitize lint format clean distclean

WORKERS ?= 2
RECIPE ?= models/recipes/lenet_mnist_terngrad.flags
FLAGS ?=
PYTEST_FLAGS ?=
TWO_AT_A_TIME = --numprocesses=2 --dist=loadfile

BIN := .venv/bin
CPP_FILES = $(shell find custom_ops -name '*.cc' -o -name '*.h' -o -name '*.cu')

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12
	@echo
	@echo "make train WORKERS=4 FLAGS='--epochs=2 --seed=1' changes the run;"
	@echo "RECIPE=models/recipes/... picks another one."

setup: ## Make .venv: pinned packages, Horovod, custom_ops
	@tools/setup.sh

train: setup ## Train LeNet on MNIST with ternary gradients on 2 workers
	PYTHONUNBUFFERED=1 $(BIN)/horovodrun --gloo -np $(WORKERS) \
	  -H localhost:$(WORKERS) $(BIN)/python train.py --flagfile=$(RECIPE) $(FLAGS)

# Tests of several workers use all cores themselves: one at a time.
test: setup lint test-core ## Lint, then the whole suite
	$(BIN)/python -m pytest -m "not horovod" $(TWO_AT_A_TIME) $(PYTEST_FLAGS)
	$(BIN)/python -m pytest -m horovod $(PYTEST_FLAGS)

test-fast: setup ## The tests that take a minute: no worker processes
	$(BIN)/python -m pytest -m "not slow and not horovod" $(TWO_AT_A_TIME) \
	  $(PYTEST_FLAGS)

test-core: setup ## The C++ tests of the kernels, without TensorFlow
	@$(BIN)/cmake -S custom_ops -B build/core -DWITH_TENSORFLOW=OFF \
	  -DBUILD_TESTING=ON > /dev/null
	@$(BIN)/cmake --build build/core --parallel
	@$(BIN)/ctest --test-dir build/core --output-on-failure

test-sanitize: setup ## The same under AddressSanitizer and UBSan
	@$(BIN)/cmake -S custom_ops -B build/sanitize -DWITH_TENSORFLOW=OFF \
	  -DBUILD_TESTING=ON -DSANITIZE=ON > /dev/null
	@$(BIN)/cmake --build build/sanitize --parallel
	@$(BIN)/ctest --test-dir build/sanitize --output-on-failure

lint: setup ## ruff and clang-format, changing nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@echo clang-format --dry-run --Werror: $(words $(CPP_FILES)) files
	@$(if $(CPP_FILES),$(BIN)/clang-format --dry-run --Werror $(CPP_FILES))

format: setup ## ruff and clang-format, in place
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	@$(if $(CPP_FILES),$(BIN)/clang-format -i $(CPP_FILES))

clean: ## Remove what was built; .venv and the cache of wheels stay
	rm -rf build dist ./*.egg-info .pytest_cache .ruff_cache
	rm -f custom_ops/libcustom_ops.so custom_ops/build_info.json
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf .venv
