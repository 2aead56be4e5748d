# Everything is set up in .venv of this checkout; nothing global. PYTHON=python3.12 make … picks another Python.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test test-slow check notebooks clean

setup: $(STAMP)

$(STAMP): requirements.txt requirements-unsloth.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python {v[0]}.{v[1]}: expected 3.11 to 3.13. Try: make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --no-compile torch==2.13.0 -r requirements.txt
	$(BIN)/python -m pip install -q --no-compile --no-deps -r requirements-unsloth.txt
	$(BIN)/python -m pip install -q --no-compile --no-build-isolation -e '.[dev]'
	$(BIN)/python -m compileall -q -j 0 .venv/lib || true  # on all cores; some packages hold files of other Pythons
	@touch $@

demo: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m helpers.run --preset demo $(ARGS)

test: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests --durations 15

test-slow: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python notebooks/build.py --check

notebooks: setup
	$(BIN)/python notebooks/build.py

clean:
	rm -rf .venv outputs/.cache
