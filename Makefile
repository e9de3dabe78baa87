# Each target makes .venv when it is missing; `make demo` and `make test` need Python >= 3.10 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable
ONE_THREAD := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 MPLBACKEND=agg

.PHONY: help demo docs test lab lint gate test-notebooks test-python test-oldest release-check fuzz kill
.PHONY: bench paper test-gpu bench-gpu notebooks format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    train a small ATSS detector on procedural scenes (CPU, minutes) and write runs/demo/report.html"
	@echo "make test    lint, the notebook gate, the documentation, all notebooks, all tests"
	@echo "make fuzz    broken files for every reader, other ones each time: COUNT=200000 SEED=7"
	@echo "make test-oldest    the tests with the lowest version of every requirement, in an environment of their own"
	@echo "make release-check  build sdist and wheel, install them in fresh environments and use them there: 15 minutes"
	@echo "make lab     open JupyterLab on a working copy of the notebooks"
	@echo "make docs    build the documentation: _docs/html/index.html, offline, in a minute or two"
	@echo "make bench   run every benchmark and write bench/results/: an hour on a quiet machine"
	@echo "make paper   train for the paper's tables and write data/results/paper: hours; QUICK=1: minutes, WORKERS=2: two at a time"
	@echo "make notebooks  execute every notebook, store what it shows, and clean: SLOW=1 measures times again, too"
	@echo "make format  format the notebooks and scripts, export and clean: run before a commit"

$(READY): settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "atss_nb needs Python >= 3.10, this is " + sys.version)'
	@echo "== Making .venv and installing atss_nb with its requirements (PyTorch is large: this takes minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) .
	@$(PIP) ".[dev,docs]"  # second, so that the CUDA parts follow the PyTorch that is there
	@touch $@

demo: $(READY)
	@$(BIN)/atss demo

docs: $(READY)
	@echo "== Documentation"
	@$(ONE_THREAD) $(BIN)/python docs/prepare.py
	@$(BIN)/sphinx-build -W --keep-going -q -j auto -c docs -d _docs/doctrees _docs/source _docs/html
	@echo "open _docs/html/index.html"

lab: $(READY)
	@$(BIN)/atss lab

test: $(READY)
	@$(MAKE) --no-print-directory lint gate docs test-notebooks test-python

lint: $(READY)
	@echo "== Lint"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check --select F --isolated atss_nb
	@$(BIN)/mypy

gate: $(READY)
	@echo "== Notebooks, package and README agree, and the notebooks are clean"
	@$(BIN)/python tools/gate.py
	@$(BIN)/python tools/architecture.py --check

test-notebooks: $(READY)
	@echo "== Notebooks"
	@$(ONE_THREAD) NUMBA_ENABLE_CUDASIM=1 timeout 1200 $(BIN)/nbdev_test --n_workers 2 --timing

test-python: $(READY)
	@echo "== Tests"
	@$(ONE_THREAD) timeout 1800 $(BIN)/pytest -q --numprocesses 2 --dist loadfile --durations 10 tests

fuzz: $(READY)
	@echo "== Broken files for every reader; then other examples for the property tests"
	@$(ONE_THREAD) $(BIN)/python tests/fuzz.py $(or $(COUNT),20000) $(if $(SEED),--seed $(SEED))
	@$(ONE_THREAD) $(BIN)/pytest -q --numprocesses 2 --dist loadfile -m hypothesis --hypothesis-profile fuzz tests

test-oldest:
	@$(ONE_THREAD) NUMBA_ENABLE_CUDASIM=1 $(PYTHON) tools/release_check.py --oldest

release-check:
	@$(PYTHON) tools/release_check.py

test-gpu: $(READY)
	@$(PIP) ".[dev,cuda]"
	@$(BIN)/pytest -q tests/test_geometry_cuda.py tests/test_training_cuda.py

kill: $(READY)
	@seed=$${SEED:-$$RANDOM$$$$}; echo "== $${KILLS:-30} kills a command, SEED=$$seed"; KILLS=$${KILLS:-30} SEED=$$seed $(BIN)/pytest -q -s -n0 -k killed_at_any tests/test_safety.py

bench: $(READY)
	@for name in start overlap assign data tiles evaluation step train memory inference explorers demo; do $(BIN)/python bench/$$name.py || exit 1; done

bench-gpu: $(READY)
	@$(PIP) ".[dev,cuda]"
	@$(BIN)/python bench/gpu.py $(if $(DATA),--data $(DATA))

paper: $(READY)
	@$(ONE_THREAD) $(BIN)/python bench/paper.py $(if $(QUICK),--quick) $(if $(WORKERS),--workers $(WORKERS))

notebooks: $(READY)
	@$(ONE_THREAD) $(BIN)/python tools/notebooks.py $(if $(SLOW),--slow)
	@$(MAKE) --no-print-directory format

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/nbdev_export
	@$(BIN)/python tools/docstrings.py
	@$(BIN)/nbdev_clean
	@$(BIN)/python tools/readme.py
	@$(BIN)/python tools/architecture.py

clean:
	rm -rf .venv build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
