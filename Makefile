PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
BENCH_STAMP := .venv/.installed-bench
DOCS_STAMP := .venv/.installed-docs
# Parallelism is over processes; two BLAS threads a process only get in each other's way.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: figures test test-all lint kernels bench docs clean

figures: $(STAMP)  ## every figure, the evidence, the index and the gallery
	$(BIN)/theorylab run --full --jobs 2
	$(BIN)/python docs/picture.py
	$(BIN)/theorylab report

test: $(STAMP)  ## lint, types, quick tests
	$(MAKE) --jobs 2 lint kernels
	$(BIN)/pytest -n 2 --dist worksteal -m "not long"

test-all: $(STAMP)  ## the long tests too
	$(MAKE) --jobs 2 lint kernels
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

kernels: $(STAMP)  ## compile them once, before the test workers start
	$(BIN)/python tests/compile_kernels.py

bench: $(BENCH_STAMP)  ## speed against named peers, one thread
	$(BIN)/python benchmarks/run.py

docs: $(DOCS_STAMP)  ## the site, in .theorylab/site
	$(BIN)/python docs/site/build.py

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $(STAMP)

$(BENCH_STAMP): $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,bench]'
	touch $(BENCH_STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	touch $(DOCS_STAMP)

clean:
	rm -rf .venv .theorylab
