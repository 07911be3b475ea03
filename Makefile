# `make` alone lists the commands. Each does what set-up it needs.

PYTHON ?= python3
TORCH  := torch==2.13.0
VENV   := .venv
READY  := $(VENV)/.ready
PY     := $(VENV)/bin/python
TOOL   := $(PY) tools/chapters.py

# What a reader's own settings must not change: where packages go, which code is imported, how figures look.
export IPYTHONDIR := $(CURDIR)/$(VENV)/ipython
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/matplotlib
export JUPYTER_RUNTIME_DIR := $(CURDIR)/$(VENV)/jupyter
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_USER := 0
# Idle threads look for work a thousand times, then sleep. Longer, and on a busy machine an operation can take
# milliseconds; not at all, and every operation has to wake them. Where notebooks share the cores, they sleep at once.
export GOMP_SPINCOUNT := $(if $(filter test portable,$(MAKECMDGOALS))$(QUICK),0,1000)
# glibc keeps freed pages: else a stack's step, minidl's and PyTorch's alike, loses up to a third of its time to get them anew.
export MALLOC_TRIM_THRESHOLD_ := 1073741824
export MALLOC_MMAP_THRESHOLD_ := 33554432
unexport JUPYTER_PATH MPLBACKEND PIP_PREFIX PIP_TARGET PYTHONHOME PYTHONPATH PYTHONWARNINGS

.PHONY: help setup reproduce test lab export run chapter check certificate fuzz mutants browser versions bench portable clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## make the environment .venv; PYTHON=python3.12 chooses the interpreter
	@echo "ready: $(PY)"

# The stamp, written last, holds the folder: what was left half-made or was moved (its scripts name the old place)
# is made anew. After a change of the packages or their versions alone, pip brings what is new.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
define CREATE
@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("Python 3.11 to 3.13, as in make PYTHON=python3.13")'
$(PYTHON) -m venv --clear $(VENV)
endef
endif

# torch first and alone, so that pip settles on this build before other packages ask for any.
$(READY): pyproject.toml constraints.txt
	$(CREATE)
	$(PY) -m pip install -c constraints.txt $(TORCH)
	$(PY) -m pip install -c constraints.txt -e ".[dev]"
	@$(PY) -c "import matplotlib.font_manager" # its cache of fonts, which takes a while and says so
	@echo "$(CURDIR)" > $@

# What a part has found is kept in build/reproduction/: a later call runs what is left or has changed.
reproduce: $(READY) ## run the last chapter: print its table, write build/reproduction.html; QUICK=1: a preview
	@$(PY) tools/reproduce.py

test: $(READY) ## run every notebook and test again and compare; minidl/ must be what the chapters export
	$(TOOL) check
	$(PY) -m pytest --nbval -n 2

lab: $(READY) ## open JupyterLab at chapter 00
	@test -w ~ || export JUPYTER_CONFIG_DIR="$$JUPYTER_RUNTIME_DIR" JUPYTER_DATA_DIR="$$JUPYTER_RUNTIME_DIR"; \
	exec $(PY) -m jupyterlab chapters/00_map.ipynb

export: $(READY) ## write minidl/ from the chapters
	$(TOOL) export

run: export ## execute every notebook and store its outputs in normal form
	$(TOOL) run

chapter: $(READY) ## N=04: export, run and test one chapter and its solutions
	$(TOOL) export
	$(TOOL) run $(NOTEBOOKS)
	$(PY) -m pytest --nbval $(NOTEBOOKS)

UNKNOWN   = $(error make chapter: expected the number of a chapter, as in N=04, got N=$(N))
NOTEBOOKS = $(or $(and $(N),$(wildcard chapters/$(N)_*.ipynb)),$(UNKNOWN)) $(wildcard chapters/solutions/$(N)_*.ipynb)

check: $(READY) ## lint; are notebooks in normal form, is minidl/ in step?
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(TOOL) check

certificate: $(READY) ## judge every module, loss, optimiser and initialiser, under a minute: build/certificate.html
	@$(PY) tools/certificate.py

fuzz: $(READY) ## 20,000 wrong and strange arguments for every public function, some minutes; make test tries 1,000
	FUZZ=20000 $(PY) -m pytest tests/test_fuzz.py

# A slider can do without fifty replicas.
browser: export QUICK := 1
browser: $(VENV)/.browser ## move every chapter's slider in JupyterLab, in Debian's chromium
	$(PY) -m pytest -m browser tests/test_lab.py

$(VENV)/.browser: $(READY)
	$(PY) -m pip install -c constraints.txt -e ".[browser]"
	@touch $@

mutants: $(VENV)/.mutants ## how many wrong lines the tests notice: hours, and it goes on where it stopped; FILES="init optim"
	@$(PY) tools/mutants.py $(FILES)

$(VENV)/.mutants: $(READY)
	$(PY) -m pip install -c constraints.txt -e ".[mutants]"
	@touch $@

versions: $(READY) ## run all that make test runs with other Pythons and torches, in build/versions: hours, and 17 GB
	$(PY) tools/versions.py

bench: $(READY) ## time minidl beside PyTorch, a few minutes: tables, build/bench.json and build/bench.png
	@env -u GOMP_SPINCOUNT $(PY) tools/bench.py # the threads of PyTorch as they come

portable: $(READY) ## run the chapters as other machines would, and from other seeds: hours; ONLY="avx2 seeds+1000"
	@$(PY) tools/portable.py $(if $(ONLY),--only $(ONLY))

clean: ## remove the environment, build/ and caches
	rm -rf $(VENV) build mutants *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
