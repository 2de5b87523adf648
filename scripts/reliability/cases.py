"""Kinds of inputs that people pass and software gets wrong: what is checked, and the test that checks it.

`docs/reliability.md` shows the table; `tests/test_reliability.py` finds every test of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A kind of input.

    Attributes:
        kind: the input, in words.
        checked: what holds.
        tests: "file::function" below tests/.
    """

    kind: str
    checked: str
    tests: tuple[str, ...]


ANSWERS = (  # what was, or could be, answered wrongly without an error
    Case(
        "a target function, inputs of different lengths",
        "it sees one input at a time, without padding, in the order of the caller; its scores are those of the input "
        "alone",
        ("models/test_inputs.py::test_a_function_sees_one_input_at_a_time_without_padding",),
    ),
    Case(
        "tensors padded on the left, masks with holes",
        "class and probability are those of `model(**inputs)`, positions included",
        (
            "models/test_inputs.py::test_padded_rows_are_explained_as_they_are",
            "models/test_inputs.py::test_a_mask_with_holes_keeps_its_positions",
        ),
    ),
    Case(
        "`labels` among the tensors",
        "they reach neither forward nor the configuration; this and later explanations are as without them",
        ("models/test_inputs.py::test_labels_never_reach_the_model",),
    ),
    Case(
        "a pipeline with settings of its own; pipelines of other tasks",
        "what the pipeline answers is explained, or the task is refused by name",
        (
            "models/test_pipelines.py::test_the_settings_of_a_pipeline_are_its_own",
            "models/test_pipelines.py::test_zero_shot_scores_are_the_pipelines",
            "models/test_pipelines.py::test_other_tasks_are_refused_by_name",
            "test_law_pipelines.py::test_target_and_probability_are_those_of_the_pipeline",
        ),
    ),
    Case(
        "cosine similarity, norms, softmax, products, maxima and other nonlinear functions as target",
        "norms are held constant, tangents, held factors, products and selected outputs are named, and the target is "
        "named where it is the cause",
        (
            "methods/test_linearized_target.py::test_a_norm_by_which_is_divided_is_held_constant",
            "methods/test_linearized_target.py::test_a_probability_is_explained_by_its_tangent_and_the_target_is_named",
            "methods/test_linearized_target.py::"
            "test_a_function_whose_factor_is_held_is_named_and_the_scores_are_those_of_the_output_times_it",
            "methods/test_linearized_target.py::test_a_product_and_a_quotient_of_outputs_are_named",
            "methods/test_linearized_target.py::test_a_target_that_selects_outputs_or_takes_signs_is_named",
        ),
    ),
    Case(
        "a model that runs its encoder on two texts",
        "a text that the value does not depend on has no scores; layers are those of the text itself, and the share of "
        "the other text is named",
        (
            "models/test_two_passes.py::test_a_text_that_the_value_does_not_depend_on_has_no_scores",
            "models/test_two_passes.py::test_layers_and_attention_methods_are_those_of_the_text_itself",
            "models/test_two_passes.py::test_the_share_of_the_other_text_is_named",
        ),
    ),
    Case(
        "adapters, and modules around an encoder",
        "the scores are those of the bare model that computes the same function",
        ("models/test_wrapped_tables.py::test_a_wrapped_model_has_the_scores_of_the_bare_one",),
    ),
    Case(
        "scores that do not refer to a class",
        "no sentence, page or legend says that they support or oppose one",
        ("results/test_explanation.py::test_only_a_class_linked_method_speaks_for_or_against_the_class",),
    ),
    Case(
        "a text too short to certify anything",
        "the outcome is a third one, in words, color and exit status",
        (
            "results/test_outcome.py::test_text_color_and_html_say_it_in_words",
            "cli/test_cli_certify.py::test_a_text_without_a_row_that_could_change_is_status_3",
        ),
    ),
    Case(
        "an information profile after the weights were changed, also through `.data`",
        "it is refused: checksums are compared",
        (
            "models/test_runner.py::test_a_fingerprint_notices_what_is_written_through_data",
            "tasks/test_fit_information.py::test_profiles_of_another_model_are_refused",
        ),
    ),
    Case(
        "images: tokens in front of the patches",
        "they are named and special, patches have their row and column, and attention methods serve them",
        (
            "models/test_patches.py::test_prefix_tokens_are_no_patches",
            "methods/test_attention_on_patches.py::test_attention_and_rollout_are_those_of_the_models_own_rows",
        ),
    ),
    Case(
        "`--file` with a table",
        "it is read by its suffix",
        ("cli/test_cli_inputs.py::test_a_file_is_read_by_its_suffix",),
    ),
    Case(
        "tuples of three texts, lists of words",
        "what is ambiguous is refused",
        ("models/test_inputs.py::test_what_could_mean_two_things_is_refused",),
    ),
    Case(
        "dropout or noise that stays on in evaluation mode",
        "every task says that the model is random, and how much",
        ("models/test_random_models.py::test_monte_carlo_dropout_is_named_by_every_task",),
    ),
    Case(
        "efficient attention of values that nearly depend on one another",
        "a row is called optimal only within the limit of the residual, and equals that of double precision",
        (
            "kernels/test_efficient_residual.py::test_rows_are_those_of_the_full_precision_of_the_values",
            "kernels/test_efficient_residual.py::test_a_row_above_the_limit_is_not_optimal",
        ),
    ),
    Case(
        "a model whose rows depend on each other (statistics of the batch, sorting)",
        "several rows are refused with this reason, single rows and texts are explained one by one",
        (
            "models/test_row_independence.py::test_rows_that_depend_on_each_other_are_refused",
            "models/test_row_independence.py::test_texts_of_such_a_model_are_run_one_at_a_time",
        ),
    ),
    Case(
        "a model that ignores or replaces its attention mask",
        "it is refused with this reason, or explained as it answers",
        ("models/test_row_independence.py::test_a_model_that_ignores_its_mask_is_refused_with_this_reason",),
    ),
    Case(
        "outputs that are probabilities; a target for another head than the model has",
        "refused with this reason",
        (
            "models/test_other_heads.py::test_outputs_that_are_probabilities_are_refused_with_this_reason",
            "models/test_other_heads.py::test_a_target_for_another_head_is_refused_by_the_name_of_the_head",
        ),
    ),
)

REASONS = (  # what ended, or could end, in an exception of another library or an untrue reason
    Case(
        "own classes, plain tensors and mappings as outputs",
        "they get the arguments that they take and are explained as they answer",
        (
            "models/test_inputs.py::test_arguments_that_the_forward_does_not_take_are_left_out",
            "models/test_output_heads.py::test_every_form_of_class_logits_is_read",
        ),
    ),
    Case(
        "further arguments that happen to be as wide as a text is long",
        "they reach the model as they are",
        ("models/test_odd_tensors.py::test_features_as_wide_as_a_text_is_long_reach_the_model_as_they_are",),
    ),
    Case(
        "decoders without a padding token",
        "every method and task runs them row by row",
        (
            "models/test_inputs.py::test_decoders_without_a_padding_token_run_row_by_row",
            "tasks/test_decoders.py::test_every_method_scores_rows_of_equal_length",
        ),
    ),
    Case(
        "models of sentence-transformers and SetFit",
        "their own answer is explained",
        (
            "models/test_sentence_models.py::test_a_cross_encoder_explains_its_score",
            "models/test_sentence_models.py::test_the_similarity_of_a_sentence_transformer_is_its_own",
            "models/test_sentence_models.py::test_a_setfit_model_explains_its_class",
        ),
    ),
    Case(
        "columns, Series, arrays, generators; one bad text among many",
        "every ordered container is a list, and an error names the index",
        (
            "tasks/test_containers.py::test_a_container_is_a_list",
            "tasks/test_containers.py::test_a_bad_text_is_refused_with_its_index_by_every_task",
        ),
    ),
    Case(
        "lone surrogates, invalid UTF-8, ids out of range, tensors of odd kinds, objects that are no tokenizer",
        "refused by name",
        (
            "tasks/test_containers.py::test_what_a_tokenizer_raises_names_the_input",
            "models/test_odd_tensors.py::test_odd_tensors_are_refused_by_name_in_every_task",
            "models/test_odd_tensors.py::test_what_is_no_tokenizer_is_refused_by_every_task",
            "cli/test_cli_inputs.py::test_text_that_is_not_utf8_is_refused_by_its_place",
            "tasks/test_odd_arguments.py::test_every_argument_takes_any_value_without_an_accident",
        ),
    ),
    Case(
        "damaged, deep and huge data files; closed streams",
        "one line names the row or the stream",
        (
            "data/test_texts.py::test_damaged_files_are_refused_by_row",
            "data/test_texts.py::test_cells_longer_than_the_csv_module_allows_are_read",
            "data/test_texts.py::test_a_folder_with_a_damaged_file_is_refused_by_name",
            "cli/test_cli_main.py::test_closed_streams_and_a_full_disk_end_the_command_in_one_line",
        ),
    ),
    Case(
        "a full disk, Ctrl-C, SIGTERM, two writers",
        "a file is the old one or the new one, one writer wins, and finished results are written",
        (
            "test_atomic_files.py::test_a_full_disk_leaves_the_file_that_was_there",
            "test_atomic_files.py::test_an_interruption_at_any_line_leaves_the_old_or_the_new_content",
            "test_atomic_files.py::test_of_many_writers_exactly_one_wins_without_overwrite",
            "cli/test_cli_main.py::test_an_interruption_writes_the_results_so_far",
        ),
    ),
    Case(
        "edited results, and small files that unpack to large ones",
        "refused, or usable",
        (
            "results/test_edited_files.py::test_an_edited_record_is_refused_or_can_be_used",
            "results/test_edited_files.py::test_a_small_file_that_unpacks_to_a_large_one_is_refused_before_it_is_read",
        ),
    ),
    Case(
        "gradient checkpointing under a capture",
        "a recomputation in a backward pass is no new call",
        ("capture/test_capture_leaves_no_trace.py::test_recomputation_in_a_backward_pass_is_no_new_call",),
    ),
    Case(
        "attention methods of models without a class",
        "they need none",
        ("methods/test_without_class.py::test_an_encoder_alone_has_the_scores_of_its_classifier",),
    ),
    Case(
        "offloaded models, nested captures, modules used twice, recurrent heads",
        "explained, or refused with the true reason; the operation that no rule follows is named",
        (
            "models/test_offloaded_models.py::test_an_offloaded_model_has_the_scores_of_the_model",
            "capture/test_nested_and_shared.py::test_captures_may_be_nested_around_a_forward_pass",
            "capture/test_nested_and_shared.py::test_a_module_that_stands_in_several_places_counts_in_each",
            "capture/test_nested_and_shared.py::test_the_operation_that_no_rule_follows_is_named",
        ),
    ),
    Case(
        "messages that name an argument; names of pages",
        "the argument exists, and `--html` refuses a name that is no page",
        (
            "tasks/test_odd_arguments.py::test_the_message_has_the_argument_the_value_and_what_is_allowed",
            "cli/test_cli_output.py::test_a_page_must_be_named_as_one",
        ),
    ),
    Case(
        "Chinese, contractions, tokens with blanks, offsets of a BatchEncoding",
        "words are the segments of Unicode, cut without blanks",
        (
            "models/test_words.py::test_a_chinese_sentence_is_as_many_words_as_tokens",
            "models/test_words.py::test_a_contraction_is_one_word_with_the_sum_of_its_tokens",
            "models/test_words.py::test_offsets_have_no_blank_and_words_are_cut_by_them",
            "models/test_words.py::test_offsets_and_words_of_a_batch_encoding_are_kept",
        ),
    ),
    Case(
        "a saved attention head",
        "`import hf_attn_mi` is enough to load it",
        ("heads/test_auto_registration.py::test_a_saved_head_is_loaded_and_the_hook_is_gone",),
    ),
    Case(
        "terminals of 256 and 16 colors",
        "each level keeps its hue and is readable",
        ("results/test_document.py::test_every_level_has_its_hue_and_is_readable_in_every_depth",),
    ),
    Case(
        "multiple choice, lists of pairs",
        "choices are explained, and what has none is refused",
        (
            "models/test_targets.py::test_a_choice_is_its_own_row",
            "models/test_odd_tensors.py::test_inputs_without_choices_are_refused_by_a_model_for_multiple_choice",
        ),
    ),
)


def table() -> list[str]:
    """The lines of the section of docs/reliability.md."""
    lines = [
        "## Kinds of inputs, and the tests that check them",
        "",
        "Each row is a kind of input that is common and easily answered wrongly. The tests are below `tests/`; one "
        "test finds every name of this table.",
        "",
        "| input | what holds | tests |",
        "|---|---|---|",
    ]
    for case in (*ANSWERS, *REASONS):
        tests = "<br>".join(f"`{test.replace('::', '` `')}`" for test in case.tests)
        lines.append(f"| {case.kind} | {case.checked} | {tests} |")
    return [*lines, ""]
