# make demo: a small dataset from real clips on this machine's CPU.   make train-demo: train on it.   make test: all checks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out/quickstart
# more than the cores of a small machine: tests of whole runs mostly wait for processes
TEST_PROCESSES ?= 3

.PHONY: demo train-demo test lint samples bench clean

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; give it as make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/.base
	$(BIN)/motionpair fetch samples
	$(BIN)/motionpair run manifests/recipes/quickstart.yaml --out $(OUT)
	$(BIN)/motionpair verify $(OUT)/release

$(VENV)/.trainer: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[trainer]'
	touch $@

train-demo: $(VENV)/.trainer
	test -d $(OUT)/release || $(MAKE) demo
	$(BIN)/motionpair latents $(OUT)/release --to out/quickstart/latents --level 3
	$(BIN)/motionpair train factory/trainer/configs/demo.yaml
	$(BIN)/motionpair sample out/train-demo --release $(OUT)/release --steps 12 --guidance 1 --to out/train-demo/sample.mp4

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

samples: $(VENV)/.dev
	$(BIN)/motionpair fetch samples

test: $(VENV)/.dev
	$(MAKE) --no-print-directory --jobs=2 --output-sync lint samples
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

bench: $(VENV)/.dev
	for b in benchmarks/*.py; do $(BIN)/python $$b --quick || exit 1; done

clean:
	rm -rf $(VENV) out .mypy_cache .pytest_cache .ruff_cache
