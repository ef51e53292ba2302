# make demo          the whole path on synthetic films, about three minutes on two cores after set-up
# make demo FILMS=D  the same, tested on the videos in folder D
# make test          every test; PROGRAMS= leaves out what would be installed with apt-get
# make quick         the tests that take milliseconds
# make test-gpu      the tests that need a GPU, on one
# make test-cuda110  those of pipelines/ again, on the last DALI for CUDA 11
# make lint          ruff, import contracts, types
# make docs          the documentation as a site, in site/

PYTHON ?= python3
PROGRAMS ?= chromium chromium-driver fonts-liberation ffmpeg
VENV := .venv
BIN := $(VENV)/bin
# A CPU needs no more threads than it has cores, and benchmarks and tests share them.
export OMP_NUM_THREADS ?= $(shell nproc)

.PHONY: demo test quick test-gpu test-cuda110 programs lint docs clean

$(VENV)/.ready: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "bassl-fast needs Python 3.10 or later; make PYTHON=python3.11")'
	@echo "installing about 4 GB into $(VENV), which takes some minutes"
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	touch $@

$(VENV)/.built: $(VENV)/.ready setup.py pipelines/fused.c
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv-cuda110/.ready: requirements-cuda110.lock
	rm -rf .venv-cuda110
	$(PYTHON) -m venv .venv-cuda110
	.venv-cuda110/bin/python -m pip install -q --disable-pip-version-check -r requirements-cuda110.lock
	touch $@

demo: $(VENV)/.built
	rm -rf demo
	$(BIN)/bassl-fast demo --out demo $(if $(FILMS),--films "$(FILMS)")

# The report is tested in a real browser, chapters by ffmpeg. If they are missing and we are root, they are installed.
programs:
	@there() { command -v chromium && command -v chromedriver && command -v ffmpeg; } >/dev/null; \
	if ! there && [ -n "$(PROGRAMS)" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "installing with apt-get: $(PROGRAMS) (PROGRAMS= leaves them out)"; \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			$(PROGRAMS)) >/dev/null; \
	fi; \
	there || echo "no chromium, chromedriver and ffmpeg: the tests that need them are skipped"

# Tests start processes that share the cores: a thread that waits must not spin. None sees a GPU: training in pytest's
# own process would take all of them, and Lightning would start pytest again on each.
test quick: export OMP_WAIT_POLICY = passive
test quick: export OMP_NUM_THREADS = 1
test quick: export CUDA_VISIBLE_DEVICES =
# Where Python may keep no bytecode, each of a few hundred processes would compile all our modules.
test quick: export PYTHONDONTWRITEBYTECODE =
# Memory that is freed is kept and used again: the first touch of a page costs the kernel microseconds.
test quick: export MALLOC_TRIM_THRESHOLD_ = 1000000000
test quick: export MALLOC_MMAP_THRESHOLD_ = 1000000000
test quick: export MALLOC_TOP_PAD_ = 67108864
# The files of tests are divided among three processes for two cores: many tests wait, for programs and servers.
PYTEST := $(BIN)/python -m pytest -n $(shell expr $$(nproc) \* 3 / 2) --dist loadfile --no-loadscope-reorder
test: $(VENV)/.built programs
	$(BIN)/ruff check .
	$(PYTEST)

quick: $(VENV)/.built
	$(PYTEST) -m "not slow"

test-gpu: $(VENV)/.built
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} $(BIN)/python -m pytest -m gpu

test-cuda110: .venv-cuda110/.ready $(VENV)/.built
	.venv-cuda110/bin/python -m pytest tests/pipelines

lint: $(VENV)/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/.built
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q -d site

clean:
	rm -rf $(VENV) .venv-cuda110 demo site
