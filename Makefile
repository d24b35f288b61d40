# Two commands do everything: `make demo` and `make test`. PYTHON and VENV choose the interpreter and the environment, TESTS the folders.
export PYTHONDONTWRITEBYTECODE :=  # processes that tests start load compiled modules
PYTHON ?= python3
VENV ?= .venv
TESTS ?= tests
PROCESSES := --numprocesses auto --maxprocesses 4 --dist
BIN := $(VENV)/bin

.PHONY: demo test commands slow parity check clean

demo: $(VENV)/.installed
	$(BIN)/jaxconf analyze bundled --out runs/demo --force

# Files named test_parity import PyTorch, which takes seconds.
test: $(VENV)/.test
	$(BIN)/python -m pytest $(TESTS) -m "not (parity or slow or command)" --ignore-glob "*test_parity*" $(PROCESSES) loadfile

# Whole commands, training grids, killed processes and drawn figures: apart from the others, so that these take less time. CI runs both.
commands: $(VENV)/.test
	$(BIN)/python -m pytest $(TESTS) -m "command and not slow" --ignore-glob "*test_parity*" $(PROCESSES) loadfile

# What takes minutes and is not part of every run: every mesh, a sweep of real analyses whose workers are killed, whole reproductions.
slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow $(PROCESSES) worksteal

# Compares live with PyTorch; REWRITE=1 records Hugging Face's outputs again, in one process, which sees all that was measured.
parity: $(VENV)/.parity
	JAXCONF_REWRITE=$(REWRITE) $(BIN)/python -m pytest -m parity $(if $(REWRITE),,$(PROCESSES) worksteal)

check: $(VENV)/.check
	$(BIN)/python scripts/house.py
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --markdown-docs -p no:cacheprovider README.md docs

clean:
	rm -rf .venv* build *.egg-info

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.parity: $(VENV)/.test
	$(BIN)/python -m pip install --quiet torch==2.13.0  # any other may bring gigabytes of CUDA
	$(BIN)/python -m pip install --quiet --editable '.[test,parity]'
	touch $@

$(VENV)/.check: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[test,check]'
	touch $@
