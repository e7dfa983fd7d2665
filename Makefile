# make book   environment, every notebook of the embedded edition, the book
# make epub   the book, and one file of it for readers of books
# make pdf    the book, and one file of it on paper; needs a Chromium
# make test   environment, all tests, the quick edition and a gated book build included
# make reference XAICORE_DATA=folder   environment, every notebook of the reference edition (hours; goes on where it
#                                      stopped), its results and verdicts to where they are committed
EDITION ?= embedded
PYTHON  ?= python3
JOBS    ?= 2
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
CLUSTER := $(VENV)/.cluster
LOCK    := constraints-hashed.txt
RAY     := '^(ray|grpcio|msgpack|protobuf)='
INSTALL  = $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check
LOCKED   = $(INSTALL) --no-deps --require-hashes --requirement /dev/stdin
EDITABLE = $(INSTALL) --no-build-isolation --constraint constraints.txt --editable

# Packages are installed uncompiled; what is used is compiled when first imported, and must be kept, or each process does it again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: book epub pdf test test-cluster reference lint clean
book: $(STAMP)
	@$(BIN)/xaibook run --edition $(EDITION)
	@$(BIN)/xaibook build --edition $(EDITION)

epub: book
	@$(BIN)/xaibook epub

pdf: book
	@$(BIN)/xaibook pdf

reference: $(STAMP)
	@$(BIN)/xaibook run --edition reference
	@$(BIN)/xaibook keep --edition reference

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

# On a real Ray cluster of two nodes on this machine; in a process of its own, as a lost node takes time to be noticed.
test-cluster: $(CLUSTER)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 0 tests/test_cluster.py tests/test_cluster_workers.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(STAMP): pyproject.toml $(LOCK) constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the environment into $(VENV) (a few minutes, once)"
	@# Unpacking takes longest, and uv does it side by side. It does not read pip's configuration, so it is told the index.
	@# What it did not install, pip does, from files with the hashes of the lock and no others.
	@grep '^uv=' $(LOCK) | $(LOCKED) >/dev/null 2>&1 && \
	 index=$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)}; \
	 grep -vE $(RAY) $(LOCK) | UV_CACHE_DIR=$(VENV)/.unpacked \
	 $(BIN)/uv pip install --quiet --no-deps --require-hashes --python $(BIN)/python $${index:+--default-index "$$index"} --requirement - >/dev/null 2>&1; \
	 rm -rf $(VENV)/.unpacked
	@grep -vE $(RAY) $(LOCK) | $(LOCKED)
	@# What every notebook imports is compiled meanwhile.
	@$(BIN)/python -c 'import xaicore.studies.steps, xaicore.figures, papermill, ipykernel.kernelapp, matplotlib.pyplot' >/dev/null 2>&1 & \
	 $(EDITABLE) '.[book,test]'; status=$$?; wait; exit $$status
	@touch $@

$(CLUSTER): $(STAMP)
	@echo "installing the extra 'cluster' into $(VENV)"
	@grep -E $(RAY) $(LOCK) | $(LOCKED)
	@$(EDITABLE) '.[cluster]'
	@touch $@

clean:
	rm -rf _build runs
