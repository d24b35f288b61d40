# Two commands do everything: `make demo` and `make test`. PYTHON and VENV choose the interpreter and the environment, TESTS the folders.
export PYTHONDONTWRITEBYTECODE :=  # processes that tests start load compiled modules
PYTHON ?= python3
VENV ?= .venv
TESTS ?= tests
PROCESSES := --numprocesses auto --maxprocesses 4 --dist
BIN := $(VENV)/bin
LENS := build/notebooks/transformerlens.md
NOTEBOOKS := $(filter-out $(LENS),$(patsubst docs/%.py,build/%.md,$(wildcard docs/notebooks/*.py)))
# A module is compiled when it is imported first, which most of PyTorch's and of transformers' never are.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile

.PHONY: demo play test commands programs slow parity check notebooks docs clean

demo: $(VENV)/.installed
	$(BIN)/jaxconf analyze bundled --out runs/demo --force

# The page on which the bundled model runs in the browser.
play: $(VENV)/.installed
	$(BIN)/python scripts/play_page.py

# Files named test_parity import PyTorch, which takes seconds. COMMANDS=1 adds what `make commands` runs, as in CI: what tests of a file share is made once.
test: $(VENV)/.test
	$(BIN)/python -m pytest $(TESTS) -m "not (parity or slow$(if $(COMMANDS),, or command))" --ignore-glob "*test_parity*" $(PROCESSES) loadfile

# Whole commands, studies of components, training grids, killed processes and drawn figures: apart from the others, so that these take less time.
commands: $(VENV)/.test
	$(BIN)/python -m pytest $(TESTS) -m "command and not slow" --ignore-glob "*test_parity*" $(PROCESSES) loadfile

# The tests that run on accelerators too: a program of each kind, for a jax other than the one of all tests.
programs: $(VENV)/.test
	$(BIN)/python -m pytest -m "device and not (parity or slow)" --ignore-glob "*test_parity*" $(PROCESSES) worksteal

# What takes minutes and is not part of every run: every mesh, a sweep of real analyses whose workers are killed, whole reproductions.
slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow $(PROCESSES) worksteal

# Compares live with PyTorch; REWRITE=1 records Hugging Face's outputs again, in one process, which sees all that was measured.
parity: $(VENV)/.parity
	rm -f $(LENS)
	$(MAKE) $(LENS)
	JAXCONF_REWRITE=$(REWRITE) $(BIN)/python -m pytest $$(grep -rl mark.parity tests --include "test_*.py") -m parity $(if $(REWRITE),,$(PROCESSES) worksteal)

check: $(VENV)/.check
	$(BIN)/python scripts/house.py
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy & types=$$!; JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/python -m pytest --markdown-docs -p no:cacheprovider README.md docs --ignore docs/notebooks && wait $$types
	$(MAKE) notebooks

# Runs the notebooks that need no PyTorch; `make parity` runs the other.
notebooks: $(VENV)/.check
	rm -f $(NOTEBOOKS)
	$(MAKE) -j 2 $(NOTEBOOKS)

# A notebook becomes a page of the site once it has run without an error.
build/notebooks/%.md: docs/notebooks/%.py
	mkdir -p build/notebooks
	$(BIN)/jupytext --quiet --to ipynb --output build/notebooks/$*.ipynb $<
	PYTHONWARNINGS="ignore:IProgress not found" JAX_COMPILATION_CACHE_DIR=$(CURDIR)/.jax_cache $(BIN)/python -m pytest --nbmake --overwrite -p no:cacheprovider build/notebooks/$*.ipynb
	$(BIN)/jupyter nbconvert --log-level WARN --to markdown build/notebooks/$*.ipynb

# The documentation site, build/site/index.html, which opens from disk. Its links are checked. Notebooks that have run are not run again.
docs: $(VENV)/.docs
	$(MAKE) -j 2 $(NOTEBOOKS) $(LENS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	$(BIN)/python -m pytest tests/scripts/test_documentation_site.py

clean:
	rm -rf .venv* build *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(INSTALL) --editable '.[test]'
	touch $@

$(VENV)/.parity: $(VENV)/.test
	$(INSTALL) torch==2.13.0 --editable '.[test,parity,notebook]'  # any other torch may bring gigabytes of CUDA
	touch $@

$(VENV)/.check: $(VENV)/.test
	$(INSTALL) --editable '.[test,check]'
	touch $@

$(VENV)/.docs: $(VENV)/.parity
	$(INSTALL) --editable '.[docs]'
	touch $@
