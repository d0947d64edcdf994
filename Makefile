# Few targets, one command each; every target sets itself up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RECORDS := benchmarks/results/cpu-$(shell getconf _NPROCESSORS_ONLN)-cores
export PYTHONSAFEPATH := 1
# scripts of benchmarks/ import their neighbours
SCRIPT := PYTHONSAFEPATH= $(BIN)/python

.PHONY: sample test fuzz check wheel bench speed speed-published speed-without-amx media default-bundle evaluate blender-addon clean

sample: $(VENV)/.installed-cpu  ## install, then give the sample video its sound: samples/drumstick.taro.mp4
	$(BIN)/taro-rt generate samples/drumstick.mp4 --force

test: $(VENV)/.installed-dev  ## install, then run the tests
	$(BIN)/pytest

fuzz: $(VENV)/.installed-dev  ## many more broken files than the tests try (an hour or so)
	$(BIN)/pytest tests/test_hostile.py --fuzz-cases 20000

check: $(VENV)/.installed-dev  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(VENV)/.installed-dev  ## build dist/*.whl
	rm -rf build dist
	$(BIN)/python -m build --wheel

blender-addon:  ## build dist/taro_rt_blender.zip for Blender's "Install from Disk"
	mkdir -p dist
	$(PYTHON) integrations/blender/build.py dist/taro_rt_blender.zip

bench: $(VENV)/.installed-dev  ## time the command and the service as their users meet them
	$(SCRIPT) benchmarks/first_use.py
	$(SCRIPT) benchmarks/service.py
	$(SCRIPT) benchmarks/table.py

speed-published: $(VENV)/.installed-dev  ## every backend by stage at the published size (an hour, 8 GB of disk)
	$(SCRIPT) benchmarks/published.py --bundle-only build/published
	$(BIN)/taro-rt bench --bundle build/published --more-takes 1 --force -o $(RECORDS)/bench-published.json
	$(BIN)/taro-rt bench --bundle build/published --backend openvino --no-fast --force -o $(RECORDS)/bench-published-takes.json
	$(SCRIPT) benchmarks/overlap.py --bundle build/published
	$(SCRIPT) benchmarks/plot.py
	$(SCRIPT) benchmarks/table.py

speed-without-amx: $(VENV)/.installed-dev  ## the same, products held to AVX-512 with bfloat16 (after speed-published)
	ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 $(BIN)/taro-rt bench --bundle build/published --backend openvino --no-fast \
		--more-takes 1 --force -o $(RECORDS)-without-amx/bench-published.json
	$(SCRIPT) benchmarks/plot.py
	$(SCRIPT) benchmarks/table.py

speed: $(VENV)/.installed-dev  ## every backend by stage, the embedded bundle; then what fast settings cost
	$(BIN)/taro-rt bench --force -o $(RECORDS)/bench-embedded.json
	$(SCRIPT) benchmarks/fast.py --clips 42
	$(SCRIPT) benchmarks/plot.py
	$(SCRIPT) benchmarks/table.py

media: $(VENV)/.installed-dev  ## broken files, kill -9, clicks, memory of an hour of video
	$(SCRIPT) benchmarks/media.py
	$(SCRIPT) benchmarks/table.py

evaluate: $(VENV)/.installed-dev  ## does the sound follow the picture?
	$(BIN)/python -m taro_rt.training.evaluate --output $(RECORDS)/evaluation.json
	$(SCRIPT) benchmarks/edits.py
	$(BIN)/python -m taro_rt.training.reconstruction --output $(RECORDS)/reconstruction.json
	$(SCRIPT) benchmarks/table.py

default-bundle: $(VENV)/.installed-dev  ## remake the embedded bundle from nothing (a working day on two cores; may be interrupted)
	$(BIN)/python -m taro_rt.training all --from-nothing

clean:
	rm -rf build dist *.egg-info src/*.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed-cpu: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e '.[cpu]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e '.[cpu,dev]'
	touch $@
