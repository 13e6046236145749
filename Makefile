# Every target uses the environment in .venv; `make setup` builds it on a bare machine.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp
# Two processes, since most tests of whole runs wait; a file's tests share what they set up.
TOGETHER := -n 2 --dist loadfile
DIGITS := demo/digits/digits-000003.tar

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo unit test test-slow check format wheel clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build .venv with the pinned versions (needs Python 3.11-3.13; PYTHON=python3.12 names one)

# uv installs about six times faster than pip, and as pip does compiles, since some machines write no bytecode later and
# each of Ray's processes would then compile what it imports; where it cannot be had or cannot reach the packages, pip does it.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/pip || $(PYTHON) -c '' 2>/dev/null || { \
		echo "$(PYTHON) is not found, or does not start; name a Python 3.11, 3.12 or 3.13: make setup PYTHON=/path/to/it" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13; name one: make setup PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv || echo "uv cannot be installed; going on with pip"
	{ test -x $(BIN)/uv && $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'; } \
		|| $(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

demo: $(DIGITS) ## Find the moved labels in scikit-learn's digits: shards, run, evaluation
	$(BIN)/rayclean run configs/digits.yaml
	$(BIN)/rayclean evaluate demo/run --worst 10

# A file, so that `make demo` again continues the run instead of writing new shards.
$(DIGITS): tools/data/make_digits.py | $(STAMP)
	$(BIN)/python tools/data/make_digits.py demo/digits --moved 0.3

test: check ## Checks, then all tests but the slow ones; installs a browser where there is none
	sh tools/install_browser.sh
	$(BIN)/python -m pytest $(TOGETHER) -m "not slow"

unit: $(STAMP) ## The tests that need no browser, no Ray and no whole run: for every edit
	$(BIN)/python -m pytest $(TOGETHER) -m unit

test-slow: $(STAMP) ## The tests that need minutes
	$(BIN)/python -m pytest $(TOGETHER) -m slow

check: $(STAMP) ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy rayclean tools tests

format: $(STAMP) ## Format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The import comes from the wheel itself, not from this folder (-P keeps the current one out of the path).
wheel: $(STAMP) ## Build dist/*.whl and import it
	rm -rf dist
	if test -x $(BIN)/uv; then $(BIN)/uv build --python $(BIN)/python --wheel --out-dir dist; \
		else $(BIN)/python -m pip wheel --no-deps --wheel-dir dist .; fi
	PYTHONPATH=$$(ls dist/rayclean-*.whl) $(BIN)/python -P -c \
		'import rayclean.cli; assert ".whl" in rayclean.__file__; print("imported", rayclean.__version__, "from the wheel")'

clean: ## Remove the demo, builds and caches; .venv and runs/ stay
	rm -rf demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find rayclean tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
