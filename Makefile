# make demo          the whole path on drawn films, about six minutes on two cores, four without set-up
# make demo FILMS=D  the same, judged on the videos in folder D
# make test          every test; make test-cuda110 repeats those of pipelines/ on the last DALI for CUDA 11
# make lint          ruff

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A CPU needs no more threads than it has cores, and benchmarks and tests share them.
export OMP_NUM_THREADS ?= $(shell nproc)

.PHONY: demo test test-cuda110 programs lint clean

$(VENV)/.ready: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "bassl-fast needs Python 3.10 or later; make PYTHON=python3.11")'
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

# The report is tested in a real browser, the chapters by ffmpeg. Where they are not there and we may install them, we do.
programs:
	@there() { command -v chromium && command -v chromedriver && command -v ffmpeg; } >/dev/null; \
	if ! there && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			chromium chromium-driver fonts-liberation ffmpeg) >/dev/null; \
	fi; \
	there || echo "no chromium, chromedriver and ffmpeg: what is tested with them is left out"

# Tests start processes that share the cores: a thread that waits must not spin.
test: export OMP_WAIT_POLICY = passive
test: $(VENV)/.built programs
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

test-cuda110: .venv-cuda110/.ready $(VENV)/.built
	.venv-cuda110/bin/python -m pytest tests/pipelines

lint: $(VENV)/.built
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .venv-cuda110 demo
