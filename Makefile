# Few targets, one command each; every target sets itself up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PYTHONSAFEPATH := 1

.PHONY: sample test fuzz check wheel bench speed media default-bundle evaluate clean

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

bench: $(VENV)/.installed-dev  ## time the command as its users meet it
	$(BIN)/python benchmarks/first_use.py
	$(BIN)/python benchmarks/table.py

speed: $(VENV)/.installed-dev  ## every backend by stage, the embedded bundle; then what fast settings cost
	$(BIN)/taro-rt bench --force -o benchmarks/results/cpu-$$($(BIN)/python -c "import os; print(os.cpu_count())")-cores/bench-embedded.json
	$(BIN)/python benchmarks/fast.py
	$(BIN)/python benchmarks/plot.py
	$(BIN)/python benchmarks/table.py

media: $(VENV)/.installed-dev  ## broken files, kill -9, clicks, memory of an hour of video
	$(BIN)/python benchmarks/media.py
	$(BIN)/python benchmarks/table.py

evaluate: $(VENV)/.installed-dev  ## does the sound follow the picture?
	$(BIN)/python -m taro_rt.training.evaluate --output benchmarks/results/cpu-$$($(BIN)/python -c "import os; print(os.cpu_count())")-cores/evaluation.json
	$(BIN)/python benchmarks/edits.py
	$(BIN)/python -m taro_rt.training.reconstruction --output benchmarks/results/cpu-$$($(BIN)/python -c "import os; print(os.cpu_count())")-cores/reconstruction.json
	$(BIN)/python benchmarks/table.py

default-bundle: $(VENV)/.installed-dev  ## remake the embedded bundle from nothing (hours)
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
