# The words of the house. `make setup` once, then the others. CI (.ci/run, .github/workflows) calls these same words.
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/recurra.stamp
CSRC := $(wildcard csrc/*)
CPP := $(wildcard csrc/*.hpp csrc/*.cpp)
BUILD_TOOLS := nanobind scikit-build-core cmake ninja
# Options of pip for torch alone, e.g. TORCH_PIP="--index-url ..." with the address of torch's CPU wheels, where the
# default wheel would bring CUDA.
TORCH_PIP ?=

.PHONY: setup demo test test-slow sanitize check stub format bench bench-kernels docs wheel

setup: $(STAMP)

.venv/bin/python:
	$(PYTHON) -m venv .venv

# Torch first, in the version of constraints.txt: no later command may bring another. seqeval and rouge-score come as source,
# and --no-build-isolation withholds what they are built with: there seqeval's version reads 0.0.0, and pip refuses it.
$(STAMP): pyproject.toml CMakeLists.txt constraints.txt $(CSRC) | .venv/bin/python
	$(PY) -c "import torch" 2>/dev/null || $(PY) -m pip install -q -c constraints.txt $(TORCH_PIP) torch
	$(PY) -m pip install -q -c constraints.txt $(BUILD_TOOLS) seqeval rouge-score
	$(PY) -m pip install -q --no-build-isolation -c constraints.txt -e ".[train,dev]"
	@$(PY) -c "import recurra._core" 2>/dev/null || printf '\n%s\n%s\n\n' \
		'WARNING: recurra._core (the C++ kernels) is NOT installed: no C++20 compiler was found, or its build failed (make wheel shows it).' \
		'         Everything runs, several times slower. Install g++ >= 11 or clang >= 14, then: touch CMakeLists.txt && make setup'
	@touch $@

demo: setup
	$(PY) -m recurra.demo

test: setup
	.venv/bin/pytest -n 2

test-slow: setup
	.venv/bin/pytest -m "slow or not slow"

# The kernel tests once, with AddressSanitizer and UndefinedBehaviorSanitizer in every file of the core (GCC alone: the two
# are loaded first, and libstdc++ with them, since Python knows neither). Python's -S and the paths in PYTHONPATH: without the hook
# of the editable install, which would import the core that is installed. pytest -s: it would swallow the report.
SANITIZED := build/sanitize
SANITIZE_TESTS ?= $(addprefix tests/conformance/,test_door.py test_scan.py test_packed.py test_threads.py test_runtime_bits.py \
	test_runtime_bound.py) -k "not grad and not derivative and not instruction"
SANITIZE_ISAS ?= avx512 avx2 portable
sanitize: setup
	mkdir -p $(SANITIZED)/recurra
	PATH=$(CURDIR)/.venv/bin:$$PATH cmake -S . -B $(SANITIZED) -G Ninja -DRECURRA_SANITIZE=ON -DPython_EXECUTABLE=$(abspath $(PY))
	PATH=$(CURDIR)/.venv/bin:$$PATH cmake --build $(SANITIZED)
	ln -sf $(CURDIR)/src/recurra/[!_]* $(CURDIR)/src/recurra/__init__.py $(CURDIR)/$(SANITIZED)/_core*.so $(SANITIZED)/recurra/
	packages=$$($(PY) -c "import pathlib, pytest; print(pathlib.Path(pytest.__file__).parents[1])"); \
	for isa in $(SANITIZE_ISAS); do \
		env RECURRA_ISA=$$isa OMP_NUM_THREADS=2 PYTHONPATH=$(CURDIR)/$(SANITIZED):$$packages \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
		$(PY) -S -m pytest -s -x -p no:cacheprovider -c pyproject.toml $(SANITIZE_TESTS) || exit 1; \
	done

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/basedpyright
	.venv/bin/lint-imports
	.venv/bin/clang-format --dry-run -Werror $(CPP)
	@if $(PY) -c "import recurra._core" 2>/dev/null; then \
		$(PY) -m nanobind.stubgen -q -m recurra._core -o .venv/_core.pyi && diff -u src/recurra/_core.pyi .venv/_core.pyi \
		|| { echo "src/recurra/_core.pyi is not what the bindings say: run make stub"; exit 1; }; fi

stub: setup
	$(PY) -m nanobind.stubgen -q -m recurra._core -o src/recurra/_core.pyi

format:
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/clang-format -i $(CPP)

# RECURRA_DATA names the folder of data sets (docs/benchmarks.md). Takes about an hour on one core.
bench: setup
	for file in m4 ett random_walk latency large; do $(PY) benchmarks/forecast_$$file.py || exit 1; done

# The layers against torch.nn's: about 12 minutes for each line, on two cores that nothing else uses.
bench-kernels: setup
	$(PY) benchmarks/kernels.py
	$(PY) benchmarks/kernels.py --isa avx2 --tables lstm,cells

docs: setup
	.venv/bin/pytest tests/unit/test_demo.py

wheel: setup
	$(PY) -m pip install -q build -c constraints.txt
	$(PY) -m build --wheel --no-isolation
