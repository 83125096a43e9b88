# Everything happens in .venv (the pinned packages) and _build (what is made); `make clean` removes the latter.
# PYTHON=python3.12 chooses the interpreter; an existing .venv of another version is then replaced.

.DEFAULT_GOAL := help
.PHONY: help book site test notebooks clean venv
PYTHON_CHOSEN := $(filter-out undefined default,$(origin PYTHON))
PYTHON ?= python3
VENV := .venv/bin/python

export PYTHONDONTWRITEBYTECODE := 1
export HYPOTHESIS_STORAGE_DIRECTORY := _build/hypothesis

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

book: venv  ## run every notebook, then build the page in _build/html (minutes)
	@$(VENV) notebooks/run.py
	@$(VENV) book/build_site.py --notebooks _build/notebooks

site: venv  ## build the page from the stored outputs, running nothing (seconds)
	@$(VENV) book/build_site.py

notebooks: export CUDA_VISIBLE_DEVICES :=
notebooks: venv  ## rerun the notebooks and store their outputs and ledgers in notebooks/
	@$(VENV) notebooks/run.py --store

# One processor thread and no GPU, as for the stored outputs: these are compared character by character.
test: export CUDA_VISIBLE_DEVICES :=
test: export OMP_NUM_THREADS := 1
test: export MKL_NUM_THREADS := 1
test: export TQDM_DISABLE := 1
test: export PYTHONPATH := $(CURDIR)
test: venv  ## unit tests, and every notebook against its stored outputs
	@mkdir -p _build
	@$(VENV) -m pytest -n 2 --dist loadscope --nbval --nbval-current-env --cov --cov-fail-under=95 notebooks tests

clean:  ## remove everything that was made, except .venv
	rm -rf _build

# .venv/installed tells what .venv was made for. It appears after the last package, so that an installation that was
# interrupted, or was made for other pins or in another folder, is never taken for this one.
WANTED = $(CURDIR) $(shell cat pyproject.toml constraints.txt | cksum)
ASK_VERSION := -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])'

venv:
	@have=`$(VENV) $(ASK_VERSION) 2>/dev/null`; \
	if [ -n "$$have" ] && [ "`cat .venv/installed 2>/dev/null`" = "$(WANTED)" ]; then \
	  if [ -z "$(PYTHON_CHOSEN)" ] || [ "`"$(PYTHON)" $(ASK_VERSION)`" = "$$have" ]; then exit 0; fi; \
	fi; \
	found=`"$(PYTHON)" $(ASK_VERSION)` || { echo "PYTHON=$(PYTHON) does not run; choose another with PYTHON=..."; exit 1; }; \
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; $(PYTHON) is $$found. Choose another with PYTHON=..."; exit 1; }; \
	echo "Installing the pinned packages into .venv (once, some minutes)"; \
	"$(PYTHON)" -m venv --clear .venv && \
	$(VENV) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[book,test]' && \
	echo "$(WANTED)" > .venv/installed
