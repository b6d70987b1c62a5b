# Everything that is set up lies in .venv; the two commands a newcomer needs are `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is kept, whatever the machine's habit: dozens of tests start programs that would each compile the pack anew.
KEEP := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=

.PHONY: help demo test check collected format generated compatibility walk archive benchmarks clean

help:
	@echo "make demo        edit a picture: at Oxen.ai if OXEN_API_KEY is set, else against the stand-in; and here with the demo model"
	@echo "make test        lint, types and tests"
	@echo "make check       lint and types alone"
	@echo "make format      bring the code into shape, before a commit"
	@echo "make generated   write what comes from the nodes: the tables of README and docs/nodes.md, the English locale, the snapshot of schemas"
	@echo "make compatibility  run the tests that need the real ComfyUI, and write docs/compatibility.md's row"
	@echo "make walk        walk a newcomer's first edit in the real ComfyUI, and picture its steps for docs/first-edit.md"
	@echo "make archive     pack node.zip as the Comfy registry does, and check what is in it"
	@echo "make benchmarks  measure what the README promises, and say what was missed"
	@echo "make clean       remove .venv, out and build"

# pip compiles on one core, a minute long; compileall does on all, and leaves out most of what is never imported.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint tests/constraints.txt

# torch is named here and nowhere in the package: ComfyUI brings its own.
$(VENV)/ready: pyproject.toml tests/constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[dev,local]'
	$(BIN)/python -m compileall -qq -j 0 -x '/(tests?|transformers/models|diffusers/pipelines)/' $(VENV)/lib || true  # templates among the files are no Python
	mkdir -p $(VENV)/typecheck
	ln -sfn ../.. $(VENV)/typecheck/kontext_bridge
	touch $@

demo: $(VENV)/ready
	@$(BIN)/python -m kontext_bridge.headless.demo

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(VENV)/typecheck && ../bin/mypy --config-file $(CURDIR)/pyproject.toml -p kontext_bridge

# The tests compiled, for every worker would do so anew, while the types are checked on the other core. What fails here
# is told by the tests themselves.
collected: $(VENV)/ready
	-@$(KEEP) $(BIN)/python -m pytest --collect-only --quiet >/dev/null 2>&1

test: $(VENV)/ready
	@$(MAKE) --no-print-directory --jobs=2 check collected
	$(KEEP) $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generated: $(VENV)/ready
	@$(BIN)/python tests/generated.py

# TESTS: some of them, as pytest takes them
compatibility: $(VENV)/ready
	@OMP_NUM_THREADS=1 $(BIN)/python tests/compatibility.py $(TESTS)

walk: $(VENV)/ready
	@OMP_NUM_THREADS=1 $(BIN)/python tests/examples/walk.py

# comfy-cli has a place of its own: it brings many packages.
build/comfy-cli/bin/comfy:
	$(PYTHON) -m venv build/comfy-cli
	build/comfy-cli/bin/python -m pip install --quiet --disable-pip-version-check comfy-cli==1.23.0

archive: $(VENV)/ready build/comfy-cli/bin/comfy
	build/comfy-cli/bin/comfy --skip-prompt --no-enable-telemetry node validate
	build/comfy-cli/bin/comfy --skip-prompt --no-enable-telemetry node pack
	COMFY_CLI=$(CURDIR)/build/comfy-cli/bin/comfy $(BIN)/python -m pytest -q tests/test_pack.py

benchmarks: $(VENV)/ready
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/all.py

clean:
	rm -rf $(VENV) out build node.zip
