# Everything happens in .venv (the pinned packages) and _build (what is made); `make clean` removes the latter.
# PYTHON=python3.12 chooses the interpreter; an existing .venv of another version is then replaced.

.DEFAULT_GOAL := help
.PHONY: help book site claim links audit lint format test test-all mutants notebooks reproduce bench clean venv
PYTHON_CHOSEN := $(filter-out undefined default,$(origin PYTHON))
PYTHON ?= python3
VENV := .venv/bin/python

# Nothing is left in the source folders, and nothing in the user's settings changes a figure or adds a warning.
export PYTHONDONTWRITEBYTECODE := 1
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/_build/hypothesis
export MPLCONFIGDIR := $(CURDIR)/_build/matplotlib
export IPYTHONDIR := $(CURDIR)/_build/ipython

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

book: venv  ## run every notebook, or ONLY=08_my_claim, then build the page in _build/html (minutes)
	@$(VENV) notebooks/run.py $(ONLY)
	@$(VENV) book/build_site.py --notebooks _build/notebooks $(addprefix --only ,$(ONLY))

site: venv  ## build the page from the stored outputs, running nothing (seconds)
	@$(VENV) book/build_site.py

claim: venv  ## begin a page of your own: NAME=08_my_claim, as a copy of another with FROM=03_threshold
	@$(VENV) notebooks/new_claim.py "$(NAME)" $(if $(FROM),--from "$(FROM)")

links: venv  ## check that the pages' links to other hosts lead somewhere (needs the network)
	@$(VENV) book/build_site.py --check-links

# pip-audit has an environment of its own, so that nothing it needs is among what is audited. A package that the service does
# not know has not been audited (--strict), and a service that does not answer is no good news either.
audit: venv  ## compare the pinned packages with known vulnerabilities (needs the network)
	@$(VENV) -m venv --clear _build/audit
	@_build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	@_build/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt \
	  > _build/audit/report 2>&1; status=$$?; \
	if [ $$status = 0 ] || grep -q '^Found ' _build/audit/report; then grep -v '^WARNING' _build/audit/report; \
	else echo "Not audited: the service that knows of vulnerabilities did not answer for every package."; \
	  echo "The last line of _build/audit/report: `tail -n 1 _build/audit/report`"; fi; exit $$status

# The commands of .pre-commit-config.yaml. Each of them, also after one that found something.
lint: venv  ## look for faults, lay-out, misspelt words, and notebooks that are not what their .md says (seconds)
	@status=0; \
	$(VENV) -m ruff check || status=1; \
	$(VENV) -m ruff format --check || status=1; \
	$(VENV) -m codespell_lib || status=1; \
	$(VENV) notebooks/run.py --check || status=1; \
	exit $$status

format: venv  ## lay out all code, that of the notebooks too (seconds)
	@$(VENV) -m ruff format
	@$(VENV) notebooks/run.py --format

notebooks: export CUDA_VISIBLE_DEVICES :=
notebooks: venv  ## rerun the notebooks and store their outputs and ledgers in notebooks/
	@$(VENV) notebooks/run.py --store

reproduce: export CUDA_VISIBLE_DEVICES :=
reproduce: venv  ## run the notebooks, or ONLY=03_threshold, twice, with two threads and with other seeds: do they print what is stored? (20 minutes)
	@$(VENV) notebooks/reproduce.py $(ONLY)

# One processor thread and no GPU, as for the stored outputs: these are compared character by character. The notebooks come
# first, since they take longest: short tests then keep both processes busy to the end.
test test-all: export CUDA_VISIBLE_DEVICES :=
test test-all: export OMP_NUM_THREADS := 1
test test-all: export MKL_NUM_THREADS := 1
test test-all: export TQDM_DISABLE := 1
test test-all: export PYTHONPATH := $(CURDIR)
test: export NCUTILS_FUZZ ?= 0.1
PYTEST = $(VENV) -m pytest -n 2 --dist loadscope --no-loadscope-reorder --nbval --nbval-current-env notebooks tests
COVERAGE = --cov=ncutils --cov-report=term-missing --cov-fail-under=95  # half as long again, where Python computes
FONTS = $(VENV) -c 'import matplotlib.font_manager'  # a first import reports that it looks for fonts: not in a notebook

test: venv  ## unit tests, and every notebook against its stored outputs (ten minutes)
	@$(FONTS)
	@$(PYTEST) -m "not depth"

test-all: venv  ## these with their coverage, long fuzzing, every page in each theme, and all mutants (half an hour or more)
	@$(FONTS)
	@status=0; $(PYTEST) $(COVERAGE) || status=1; $(VENV) tests/mutants.py || status=1; exit $$status

mutants: export CUDA_VISIBLE_DEVICES :=
mutants: venv  ## break the package in one place at a time: which row of a ledger fails? (minutes)
	@$(VENV) tests/mutants.py

# One thread, so that the figures of two machines can be compared.
bench: export OMP_NUM_THREADS := 1
bench: export MKL_NUM_THREADS := 1
bench: venv  ## measure the exact solver and training, peers beside them (minutes)
	@for file in benchmarks/*.py; do $(VENV) $$file || exit 1; done

clean:  ## remove everything that was made, except .venv
	rm -rf _build

# .venv/installed tells what .venv was made for. It goes before the first package comes and returns after the last, so
# that an interrupted installation, or one made in another folder, is never taken for this one but made again.
# distutils.cfg keeps the package's egg-info out of the checkout.
PINS = $(shell cat pyproject.toml constraints.txt | cksum)
ASK_VERSION := -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])'

venv:
	@have=`$(VENV) $(ASK_VERSION) 2>/dev/null`; want=$$have; \
	if [ -z "$$have" ] || [ -n "$(PYTHON_CHOSEN)" ]; then \
	  want=`"$(PYTHON)" $(ASK_VERSION)` || \
	    { echo "PYTHON=$(PYTHON) does not run; choose another with PYTHON=..." >&2; exit 1; }; \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or later is needed; $(PYTHON) is $$want. Choose another with PYTHON=..." >&2; exit 1; }; \
	fi; \
	made=$${have:+`cat .venv/installed 2>/dev/null`}; \
	if [ "$$made" = "$$want $(CURDIR) $(PINS)" ]; then exit 0; fi; \
	echo "Installing the pinned packages into .venv (some minutes, once)"; \
	case "$$made" in \
	  "$$want $(CURDIR) "*) rm .venv/installed ;; \
	  *) "$(PYTHON)" -m venv --clear .venv || exit 1 ;; \
	esac; \
	printf '[egg_info]\negg_base = .venv\n' > .venv/distutils.cfg && DIST_EXTRA_CONFIG=.venv/distutils.cfg \
	$(VENV) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[book,test]' && \
	echo "$$want $(CURDIR) $(PINS)" > .venv/installed
