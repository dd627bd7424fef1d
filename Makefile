# From scenes to the book in one command. `make help` lists the targets.
PRESET ?= demo
PROTOCOL ?= blind
SEEDS ?= 5
SCENES_NAME ?= real
PYTHON ?= python3
# The logger: workflow/snakemake_logger_plugin_book.
SMK = PYTHONPATH=workflow$${PYTHONPATH:+:$$PYTHONPATH} .venv/bin/python -m snakemake --logger=book $(if $(CLUSTER),--profile profiles/$(CLUSTER))
CHECKED := asnlsr benchmarks tests workflow book
SITE = build/$(PRESET)/_build/html/index.html
START := $(shell date +%s)
THE_BOOK = took=$$(( $$(date +%s) - $(START) )); echo; \
	echo "Metrics and networks: data/simulated-$(PRESET)/; made in $$(( took / 60 )) min $$(( took % 60 )) s."; \
	echo "The book: file://$(CURDIR)/$(SITE)"

# On somebody else's machine: any locale, foreign kernels, a home that cannot be written to.
export PYTHONUTF8 = 1
export JUPYTER_PREFER_ENV_PATH = 1
unexport JUPYTER_PATH
ifneq ($(shell test -d "$$HOME" -a -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/build/home
$(shell mkdir -p build/home)
endif
# What pip does not compile is compiled, and kept, where it is first used: a third of the installation's time.
unexport PYTHONDONTWRITEBYTECODE
PIP = .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check
# With uv in a third of the time; with pip where uv cannot be had or does not reach the index.
INSTALL = UV_FIND_LINKS="$$PIP_FIND_LINKS" .venv/bin/uv pip install --quiet --python .venv/bin/python -c constraints.txt -e '.[$(EXTRAS)]' || $(PIP) -c constraints.txt -e '.[$(EXTRAS)]'
# An environment that was made elsewhere, and copied or moved here, is made anew.
ELSEWHERE := $(if $(wildcard .venv/stamp),$(shell grep -qsF ' $(realpath .venv)' .venv/pyvenv.cfg || echo .venv/elsewhere))

.PHONY: all retrain book real evidence weights results sensors pdf readme drawings lab test fuzz torture bench clean help
.DEFAULT_GOAL := all

all: .venv/stamp ## make the whole book: scenes, tiles, training, metrics, chapters, site
	@echo "Looking what is to be made for the book at preset $(PRESET)."
	@$(SMK) all --config preset=$(PRESET) protocol=$(PROTOCOL) $(RETRAIN)
	@echo; cat data/simulated-$(PRESET)/table-$(PROTOCOL).md
	@$(THE_BOOK)

retrain: RETRAIN = retrain=1
retrain: all ## the same with every network trained here: an hour; with PRESET=short, for 160 steps: 17 minutes

book: .venv/stamp ## only the chapters and the site, e.g. make book PRESET=smoke
	@echo "Looking what is to be made for the chapters at preset $(PRESET)."
	@$(SMK) site --config preset=$(PRESET)
	@$(THE_BOOK)

real: .venv/stamp ## the same pipeline on your own ENVI scenes: make real SCENES=DIR
	@test -d "$(SCENES)" || { echo "make real SCENES=DIR: '$(SCENES)' is not a folder of .hdr/.img scenes" >&2; exit 2; }
	@$(SMK) table_and_runs --config preset=$(PRESET) protocol=$(PROTOCOL) dataset='!!str $(SCENES_NAME)' scenes_dir="$(if $(filter /%,$(SCENES)),,./)$(SCENES)"
	@echo; cat data/$(SCENES_NAME)-$(PRESET)/table-$(PROTOCOL).md

evidence: .venv/stamp ## many seeds of everything, for hours; stop it at any time, call it again to go on
	@test -z "$$ASNLSR_REAL_SCENES" -o "$(SCENES_NAME)" != simulated || { echo "SCENES_NAME=simulated is the name of the book's own scenes: choose another" >&2; exit 2; }
	@$(SMK) evidence --keep-going --config preset=$(PRESET) seeds=$(SEEDS)
	@test -z "$$ASNLSR_REAL_SCENES" || $(SMK) evidence --keep-going --config preset=$(PRESET) seeds=$(SEEDS) dataset='!!str $(SCENES_NAME)'
	@$(MAKE) --no-print-directory results

weights: .venv/stamp ## write one network per system, trained to the end, to data/weights; what is not finished is named
	@$(SMK) weights --config preset=$(PRESET)

results: .venv/stamp ## record in data/results what is finished of the evidence
	@$(SMK) results --nolock --config preset=$(PRESET)
	@test -z "$$ASNLSR_REAL_SCENES" || $(SMK) results --nolock --config preset=$(PRESET) dataset='!!str $(SCENES_NAME)'

sensors: .venv/stamp ## six methods, 36 sensors (PSF, noise, a wrong PSF): data/results/benchmark; ten minutes
	@$(SMK) sensors --config preset=$(PRESET)

pdf: book ## the book as one PDF: build/demo/book.pdf; needs Chromium
	.venv/bin/jupyter-book build --config build/$(PRESET)/_config.yml --path-output build/$(PRESET) --builder singlehtml build/$(PRESET)/src > build/$(PRESET)/pdf.log 2>&1
	@chromium --headless --no-sandbox --disable-gpu --virtual-time-budget=60000 --no-pdf-header-footer --print-to-pdf=build/$(PRESET)/book.pdf build/$(PRESET)/_build/singlehtml/intro.html

readme: .venv/stamp ## write the list of chapters in README.md anew
	.venv/bin/python workflow/fill_readme.py

drawings: $(patsubst %.dot,%.svg,$(wildcard book/drawings/*.dot)) ## draw the networks from book/drawings/*.dot; needs Graphviz

# Light boxes with dark text, and a grey between them that can be seen on white and on black paper.
book/drawings/%.svg: book/drawings/%.dot Makefile
	dot -Tsvg $< -o $@ \
	  -Gbgcolor=transparent -Gcolor="#999999" -Gfontcolor="#7A7A7A" -Gstyle=rounded -Gpad=0.03 \
	  -Gfontname=Helvetica -Gfontsize=11 -Gnodesep=0.1 -Granksep=0.2 \
	  -Nfontname=Helvetica -Nfontsize=11 -Nshape=box -Nstyle="rounded,filled" -Ncolor="#777777" \
	  -Nwidth=0.3 -Nheight=0.25 -Nmargin="0.07,0.035" -Ecolor="#808080" -Earrowsize=0.6

lab: .venv/stamp ## open the chapters in JupyterLab
	.venv/bin/python -m jupyterlab --notebook-dir=book

test: .venv/test ## style, types and the whole test suite, the chapters at preset smoke included
	.venv/bin/ruff check $(CHECKED)
	.venv/bin/ruff format --check $(CHECKED)
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	.venv/bin/nbstripout --verify book/*.ipynb
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

fuzz: .venv/test ## thousands of damaged files of every kind that is read, for an hour
	ASNLSR_FUZZ=15000 .venv/bin/python -m pytest -q tests/test_envi.py -k fuzz
	ASNLSR_FUZZ=6000 .venv/bin/python -m pytest -q tests/test_fuzz.py

torture: .venv/test ## kills every command at random moments, fills its disk; then the same command again
	ASNLSR_KILLS=20 .venv/bin/python -m pytest -q tests/test_torture.py

bench: .venv/test ## time and memory of all networks, in ratios to plain formulations
	.venv/bin/python -m pytest -q benchmarks --benchmark-min-rounds=9 --benchmark-columns=min,median

clean: ## remove everything that was generated, except .venv
	rm -rf build .snakemake data/*-smoke data/*-short data/*-demo data/*-paper

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10
	@echo
	@echo "Options: PRESET=smoke|short|demo|paper (now $(PRESET)), PROTOCOL=blind|as-released (now $(PROTOCOL)), SEEDS=1..5 of the evidence (now $(SEEDS)), SCENES_NAME=... of your own (now $(SCENES_NAME)), CLUSTER=slurm, PYTHON=python3.x"

.PHONY: .venv/elsewhere

.venv/stamp: EXTRAS = book
.venv/stamp: pyproject.toml constraints.txt $(ELSEWHERE)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "Installing the packages of constraints.txt into .venv: a minute or two, 2 GB of disk; then $(or $(MAKECMDGOALS),the book)."
	@echo "All in all, the first time: $(if $(RETRAIN),about an hour on two cores (PRESET=short: 17 minutes),`sed -n 's/^make  .*: about/about/p' README.md`)."
	$(PYTHON) -m venv --clear .venv
	@$(PIP) uv || true
	$(INSTALL)
	@touch $@

.venv/test: EXTRAS = book,test
.venv/test: .venv/stamp
	@echo "Installing the packages of the tests: a minute."
	$(INSTALL)
	@touch $@
