"""Refuse targets of one task for models whose class says that they have the head of another."""

from __future__ import annotations

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.base import TargetKind

HEADS = {  # parts of the names of transformers' classes: what the head predicts, and the target that explains it
    "SequenceClassification": ("classes of whole texts", "label(name)"),
    "ImageClassification": ("classes of images", "label(name)"),
    "AudioClassification": ("classes of recordings", "label(name)"),
    "NextSentencePrediction": ("whether a text follows another", "label(number)"),
    "TokenClassification": ("classes of tokens", 'token(word="...")'),
    "QuestionAnswering": ("answers to questions", "answer()"),
    "MultipleChoice": ("choices", "choice(number)"),
    "ForCTC": ("symbols of speech", "frame(number)"),
    "CausalLM": ("next tokens", "next_token()"),
    "LMHeadModel": ("next tokens", "next_token()"),
    "WithLMHeadModel": ("masked or next tokens", "mask() or next_token()"),  # XLM and FlauBERT are trained as either
    "MaskedLM": ("masked tokens", "mask()"),
}
OF_WHOLE_INPUTS = {"SequenceClassification", "ImageClassification", "AudioClassification", "NextSentencePrediction"}
OF_WHOLE_INPUTS |= {"QuestionAnswering"}  # models of images, which choose among labels
WRITERS = ("ForConditionalGeneration", ("texts that a decoder writes", 'generated("...")'))
WORDS = {  # heads that read words: the target of a word or a text
    "TokenClassification": "token(word={0!r})",
    "QuestionAnswering": "answer({0!r})",
    "CausalLM": "next_token({0!r})",
    "LMHeadModel": "next_token({0!r})",
    "MaskedLM": "mask({0!r})",
}
PURPOSES = {  # by kind of target: the models that it is for, and the heads of these
    "label": ("classifiers of whole inputs", OF_WHOLE_INPUTS),
    "margin": ("classifiers of whole inputs", OF_WHOLE_INPUTS),
    "value": ("regression models", OF_WHOLE_INPUTS),
    "token": ("token classifiers", {"TokenClassification"}),
    "mask": ("masked language models", {"MaskedLM", "WithLMHeadModel"}),
    "next_token": ("causal language models", {"CausalLM", "LMHeadModel"}),
    "answer": ("question answering", {"QuestionAnswering"}),
    "answer_start": ("question answering", {"QuestionAnswering"}),
    "answer_end": ("question answering", {"QuestionAnswering"}),
    "choice": ("multiple choice", {"MultipleChoice"}),
    "frame": ("speech recognition with a CTC head", {"ForCTC"}),
}


def heads_of(runner: EncoderRunner) -> list[str]:
    """The heads that the names of the model's classes state."""
    classes = [kind.__name__ for kind in type(runner.model).__mro__]
    return [head for head in HEADS if any(head in name for name in classes)]


def use_of_word(word: str | int, runner: EncoderRunner) -> str:
    """A sentence on the target of a word that is no label, where the model's head reads words; else ""."""
    found = [head for head in heads_of(runner) if head in WORDS] if isinstance(word, str) else []
    if not found:
        return ""
    return (
        f" {runner.class_name} has a head for {HEADS[found[0]][0]}: {WORDS[found[0]].format(word)} is a target of it."
    )


def use_of_head(runner: EncoderRunner) -> str:
    """A sentence on the target that the model's head calls for; "" for classifiers and for models without a head."""
    found = [HEADS[head] for head in heads_of(runner) if head not in OF_WHOLE_INPUTS]
    if any(WRITERS[0] in kind.__name__ for kind in type(runner.model).__mro__):
        found = [WRITERS[1]]
    return f"It has a head for {found[0][0]}: pass target={found[0][1]}. " if found else ""


def check_head(target: TargetKind, runner: EncoderRunner) -> None:
    """Refuse a target where the name of the model's class says that it has a head for something else.

    Classes of unknown names, and targets from other packages, are not refused here: their outputs decide.

    Args:
        target: the target, not yet bound.
        runner: runs the model.

    Raises:
        InvalidInputError: names the head and the target that fits it.
    """
    sides = [side for side in vars(target).values() if isinstance(side, TargetKind)]
    for side in sides:
        check_head(side, runner)
    if sides or target.kind not in PURPOSES:
        return
    purpose, allowed = PURPOSES[target.kind]
    heads = heads_of(runner)
    if heads and not allowed.intersection(heads):
        what, fitting = HEADS[heads[0]]
        raise InvalidInputError(
            f"target {target.kind} is for {purpose}; {runner.class_name} has a head for {what}: use {fitting}, or "
            "leave target out."
        )
