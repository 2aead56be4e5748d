# Everything is set up in .venv of this checkout; nothing global. `make PYTHON=python3.12 …` picks another Python.
PYTHON ?= python3
# The tests use two processes: each takes up to 3 GiB and two cores.
TEST_PROCESSES ?= 2
BIN := .venv/bin
PIP := $(BIN)/python -m pip
UV_VERSION := 0.13.9
# uv installs what the lock lists, no more and no less, each file with its hash, here and not in the environment that is
# active; where it cannot, pip takes the same lock.
UV := UV_NO_CONFIG=1 UV_SYSTEM_CERTS=1 $(BIN)/uv pip install -q --no-deps --python $(BIN)/python
install_lock = $(UV) --require-hashes --build-constraints $(1) -r $(1) \
	|| { echo "uv could not install $(1), for the reason above: pip does it, which takes longer"; \
	$(PIP) install -q --no-compile --no-deps --require-hashes -r $(1); }
# torch stands outside the lock: its build, and with it its hash, depends on the machine. pip takes the one that its own
# settings lead to. For the small CPU build on Linux: make TORCH_INDEX=https://download.pytorch.org/whl/cpu …
TORCH := torch==2.13.0
TORCH_INDEX ?=
# Compiled in one process before several need it, also where the environment tells Python to write no bytecode: else
# every process of a run and of the tests does it.
export PYTHONDONTWRITEBYTECODE :=
compile = $(BIN)/python -c "import $(1)" >.venv/import.log 2>&1 || { cat .venv/import.log; exit 1; }
STACK := matplotlib.pyplot, pandas, unsloth, trl, datasets, evaluate, optuna, papermill, nbconvert, jupytext, ipykernel
STACK_DEV := gradio, openai, pytest_cov

.PHONY: setup setup-dev demo test coverage test-slow test-platforms mutants check quick-check types notebooks gallery lock clean

# What a run needs.
setup: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python {v[0]}.{v[1]}: expected 3.11 to 3.13. Try: make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv .venv
	$(PIP) install -q --no-compile uv==$(UV_VERSION)
	$(PIP) install -q --no-compile $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(call install_lock,requirements.lock)
	$(PIP) install -q --no-compile --no-deps --no-build-isolation -e .
	$(call compile,$(STACK))
	@touch $@

# What the tests and checks need on top.
setup-dev: .venv/.installed-dev

.venv/.installed-dev: requirements-dev.lock .venv/.installed
	$(call install_lock,requirements-dev.lock)
	$(call compile,$(STACK_DEV))
	@if [ -e .git ]; then git config filter.notebook.clean "$(BIN)/python tools/notebook_pairs.py"; fi
	@touch $@

demo: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m helpers run --preset demo $(ARGS)

PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests
IN_PARALLEL := -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --durations 15

test: setup-dev
	$(PYTEST) $(IN_PARALLEL)

# The same with the lines that no test runs, which takes most of twice as long.
coverage: setup-dev
	$(PYTEST) $(IN_PARALLEL) --cov --cov-report term-missing

test-slow: setup-dev
	$(PYTEST) -m slow

# Builds twins of the images from the registries, in .venv/images.
test-platforms: setup-dev
	$(PYTEST) -m platforms --durations 15

# Which changes of the code no test notices: docs/mutants.md. An hour of one core; a second call continues it.
mutants: setup-dev
	nice -n 10 $(BIN)/python tools/mutants.py $(ARGS)

check: quick-check types

# All but the types, in less than half a minute.
quick-check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python tools/build_notebooks.py --check
	$(BIN)/python tools/draw_rooms.py --check
	$(BIN)/python tools/check_words.py
	$(BIN)/python tools/check_tests.py
	$(BIN)/python tools/check_secrets.py
	$(BIN)/codespell

types: setup-dev
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

notebooks: setup-dev
	$(BIN)/python tools/build_notebooks.py

# The demo's report, as docs/ shows it.
gallery: setup-dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m helpers run --preset demo
	$(BIN)/python tools/build_gallery.py outputs/demo
	$(BIN)/python -m helpers report outputs/demo --readme README.md

# Resolves anew what pyproject.toml and the requirements ask for, keeps the versions that still fit, and writes the
# locks without an index's address. ARGS=--upgrade takes the newest.
COMPILE_LOCK = echo "$(TORCH)" | UV_SYSTEM_CERTS=1 UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile -q --universal \
	--python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --no-emit-package torch $(ARGS) \
	- requirements.txt requirements-unsloth.txt

lock: $(BIN)/uv
	$(COMPILE_LOCK) pyproject.toml --extra dev -o requirements-dev.lock
	$(COMPILE_LOCK) -c requirements-dev.lock -o requirements.lock

$(BIN)/uv:
	$(PYTHON) -m venv .venv
	$(PIP) install -q --no-compile uv==$(UV_VERSION)

clean:
	rm -rf .venv outputs/.cache
