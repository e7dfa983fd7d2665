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
INSTALL  = $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check

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

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the environment into $(VENV) (a few minutes, once)"
	@# Unpacking takes longest, and uv does it side by side. It does not read pip's configuration, so it is told the index.
	@# What it cannot install, the pip call after it does; meanwhile what every notebook imports is compiled.
	@$(INSTALL) --constraint constraints.txt uv >/dev/null 2>&1 && \
	 index=$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)}; \
	 grep -vE '^(ray|grpcio|msgpack|protobuf)=' constraints.txt | UV_CACHE_DIR=$(VENV)/.unpacked \
	 $(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python $${index:+--default-index "$$index"} --requirement - >/dev/null 2>&1; \
	 rm -rf $(VENV)/.unpacked
	@$(BIN)/python -c 'import xaicore.studies.steps, xaicore.figures, papermill, ipykernel.kernelapp, matplotlib.pyplot' >/dev/null 2>&1 & \
	 $(INSTALL) --constraint constraints.txt --editable '.[book,test]'; status=$$?; wait; exit $$status
	@touch $@

$(CLUSTER): $(STAMP)
	@echo "installing the extra 'cluster' into $(VENV)"
	@$(INSTALL) --constraint constraints.txt --editable '.[cluster]'
	@touch $@

clean:
	rm -rf _build runs
