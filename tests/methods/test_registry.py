"""The registry of methods: one from outside works everywhere, and no name is compared with a string elsewhere."""

import ast
import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from hf_attn_mi import InvalidInputError, compare, explain, list_methods, minimal_tokens, register_method
from hf_attn_mi.cli import main
from hf_attn_mi.methods import TokenScorer, TokenScores, base, find_method, read_options, unregister_method
from tests.sample_models import TEXTS

PACKAGE = Path(__file__).parents[2] / "hf_attn_mi"


class TokenLength:
    """A method of another package: the number of letters of each token, times a factor."""

    name = "token_length"
    reference = "a test"
    class_linked = False
    needs_gradients = False
    additive = False
    cost = "no pass"
    options: ClassVar = {"factor": 1.0}

    def score(self, runner, batch, target, *, factor=1.0):
        longest = max(one.token_count for one in batch.inputs)
        scores = torch.zeros(len(batch), longest)
        for i, one in enumerate(batch.inputs):
            scores[i, : one.token_count] = factor * torch.tensor([float(len(token)) for token in one.tokens])
        return TokenScores(scores, space="letters")


@pytest.fixture
def outside():
    scorer = register_method(TokenLength())
    yield scorer
    unregister_method("token_length")


def test_every_method_has_the_members_of_the_protocol():
    methods = list_methods()
    assert len(methods) >= 20
    for name, scorer in methods.items():
        assert isinstance(scorer, TokenScorer)
        assert scorer.name == name
        assert scorer.reference
        assert scorer.cost
        assert read_options(scorer, None) == dict(scorer.options)


def test_a_method_from_outside_is_explained_compared_and_shown(demo, outside):
    model, tokenizer = demo
    first, second = explain(model, TEXTS[:2], tokenizer=tokenizer, method="token_length", options={"factor": 2.0})
    assert first.scores.tolist() == [2.0 * len(token) for token in first.tokens]
    assert (first.info["method"], first.info["class_linked"]) == ("token_length", False)
    assert len(first.layers) == model.config.num_hidden_layers
    assert second.target_name in first.to_html() + second.to_html()
    comparison = compare(model, TEXTS, tokenizer=tokenizer, methods=["token_length", "random"])
    assert comparison.methods == ("token_length", "random")
    assert "token_length" in comparison.to_html()
    assert minimal_tokens(model, TEXTS[2], tokenizer=tokenizer, ranking="token_length").defined


def test_a_method_from_outside_works_on_the_command_line(outside, tmp_path):
    path = tmp_path / "explanation.json"
    assert main(["explain", TEXTS[0], "--method", "token_length", "--json", str(path), "--quiet"]) == 0
    assert "token_length" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))


class NoConstructor(TokenLength):
    def __init__(self):
        raise RuntimeError("a licence is missing")


def test_methods_of_installed_packages_are_listed_and_a_broken_one_is_left_out(demo, monkeypatch):
    entries = [
        EntryPoint("token_length", f"{__name__}:TokenLength", base.ENTRY_POINTS),
        EntryPoint("no_package", "no_such_package_here:Scorer", base.ENTRY_POINTS),
        EntryPoint("no_attribute", f"{__name__}:NoSuchScorer", base.ENTRY_POINTS),
        EntryPoint("no_constructor", f"{__name__}:NoConstructor", base.ENTRY_POINTS),
        EntryPoint("no_method", f"{__name__}:PACKAGE", base.ENTRY_POINTS),
    ]
    monkeypatch.setattr(base, "entry_points", lambda group: entries if group == base.ENTRY_POINTS else [])
    monkeypatch.setattr(base, "_entry_points_read", False)
    with pytest.warns(UserWarning, match="is left out") as record:
        methods = list_methods()
    try:
        assert [str(one.message).split()[2] for one in record] == [one.name for one in entries[1:]]
        assert "a licence is missing" in str(record[2].message)
        assert not {one.name for one in entries[1:]} & set(methods)
        model, tokenizer = demo
        explanation = explain(model, TEXTS[0], tokenizer=tokenizer, method="token_length")
        assert explanation.scores.tolist() == [float(len(token)) for token in explanation.tokens]
    finally:
        unregister_method("token_length")


def test_what_is_no_method_is_refused(outside):
    with pytest.raises(InvalidInputError, match="exists already; pass replace=True"):
        register_method(TokenLength())
    with pytest.raises(InvalidInputError, match="has no name, reference"):
        register_method(object())
    with pytest.raises(InvalidInputError, match=r"method 'nothing' is not known; allowed are relevance"):
        find_method("nothing")
    with pytest.raises(InvalidInputError, match="no option 'steps'; allowed are factor"):
        read_options(outside, {"steps": 3})
    with pytest.raises(InvalidInputError, match=r"options\['factor'\] .* must be float, not 'two'"):
        read_options(outside, {"factor": "two"})


def test_scores_that_cannot_be_given_to_tokens_are_refused(demo, outside, monkeypatch):
    def short(self, runner, batch, target, **options):
        return TokenScores(torch.zeros(len(batch), 1))

    def infinite(self, runner, batch, target, **options):
        return TokenScores(torch.full(batch.real.shape, torch.inf))

    for score, message in ((short, "cannot be given to tokens"), (infinite, "NaN or infinite")):
        monkeypatch.setattr(TokenLength, "score", score)
        with pytest.raises(Exception, match=message):
            explain(demo[0], TEXTS[0], tokenizer=demo[1], method="token_length")


def strings_compared(tree):
    """(line, name, string) of comparisons of a variable or attribute with string constants."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        names = [
            side.id if isinstance(side, ast.Name) else side.attr
            for side in sides
            if isinstance(side, ast.Name | ast.Attribute)
        ]
        texts = [
            constant.value
            for side in sides
            for constant in ast.walk(side)
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
        ]
        for name in names:
            for text in texts:
                yield node.lineno, name, text


def test_no_method_name_is_compared_with_a_string():
    other_words = {"random", "head", "efficient", "effective", "attention"}
    methods = set(list_methods()) - other_words
    faults = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, name, text in strings_compared(ast.parse(path.read_text(encoding="utf-8"))):
            if name in ("method", "scorer") or text in methods:
                faults.append(f"{path.relative_to(PACKAGE)}:{line}: {name} with {text!r}")
    assert faults == []


def test_the_search_for_comparisons_finds_one():
    tree = ast.parse("if method == 'lime':\n    pass\nif one.method in ('a', 'b'):\n    pass\n")
    assert [(line, text) for line, _, text in strings_compared(tree)] == [(1, "lime"), (3, "a"), (3, "b")]


def test_a_method_of_this_package_is_found_without_reading_entry_points(monkeypatch):
    from hf_attn_mi.methods import base

    reads = []
    monkeypatch.setattr(base, "_entry_points_read", False)
    monkeypatch.setattr(base, "entry_points", lambda group: reads.append(group) or [])
    assert base.find_method("relevance").name == "relevance"
    assert reads == []
    with pytest.raises(InvalidInputError, match="not known"):
        base.find_method("absent")
    assert len(reads) == 1
