"""`hf-attn-mi compare`: what it draws, asks for, prints and writes."""

import gzip
import json
import random
import sys
import warnings
from collections import Counter

import pytest

from hf_attn_mi.cli import main
from hf_attn_mi.cli.samples import draw_texts
from hf_attn_mi.evaluation import RankMatrix
from hf_attn_mi.results.comparison import Comparison
from hf_attn_mi.tasks.compare import compare
from hf_attn_mi.tasks.rationales import rationale_spans
from tests.cli.command_line import refused
from tests.sample_models import TEXTS

METRICS = ("comprehensiveness", "sufficiency")


def made(failures=None):
    """A comparison made by hand; no model was asked."""
    values = {
        "relevance": {"comprehensiveness": (0.5, 0.7, 0.6), "sufficiency": (0.1, 0.0, 0.2)},
        "random": {"comprehensiveness": (0.1, 0.2, None), "sufficiency": (0.4, 0.3, None)},
    }
    info = {"model": "some-model", "removal": "delete"}
    return Comparison.from_values(values, METRICS, RankMatrix((), ()), failures=failures or {}, info=info)


@pytest.fixture
def data(tmp_path):
    """A file of 40 texts and two rows without one."""
    path = tmp_path / "texts.jsonl"
    rows = [{"text": f"text {i}"} for i in range(40)] + [{"text": " "}, {"text": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def asked(monkeypatch):
    """What `compare` is asked for; it answers with the comparison made by hand."""
    calls = []

    def answer(model, inputs, **options):
        calls.append({"model": model, "inputs": inputs, **options})
        warnings.warn("one text\nwas cut", stacklevel=2)
        print("progress", file=sys.stderr)
        return made()

    monkeypatch.setattr("hf_attn_mi.cli.compare.compare", answer)
    return calls


def test_the_table_and_what_was_drawn_are_printed(capsys, asked, data):
    assert main(["compare", "--data", str(data), "--n", "3"]) == 0
    output = capsys.readouterr()
    assert output.out == (
        f"{data}: 3 of 40 texts, drawn at random (seed 0); 2 rows without a text were passed over.\n{made()}\n"
    )
    assert output.err.splitlines() == ["progress", "hf-attn-mi: warning: one text was cut"]


def test_the_options_arrive(capsys, asked, data):
    given = (
        "--n 5 --methods lime random --metrics sufficiency auprc --target negative --removal mask --batch-size 8 "
        "--seed 7 --no-truncate --quiet"
    )
    settings = '{"lime": {"samples": 500}}'
    assert main(["compare", "--data", str(data), *given.split(), "--options", settings]) == 0
    (call,) = asked
    assert type(call.pop("model")).__name__ == "BertForSequenceClassification"
    assert call.pop("tokenizer").vocab_size == 8000
    assert call.pop("inputs") == draw_texts(str(data), 5, seed=7).texts
    assert call == {
        "methods": ["lime", "random"],
        "metrics": ["sufficiency", "auprc"],
        "target": "negative",
        "removal": "mask",
        "batch_size": 8,
        "seed": 7,
        "truncation": False,
        "options": {"lime": {"samples": 500}},
        "rationales": None,
    }
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "hf-attn-mi: warning: one text was cut\n")
    assert main(["compare", "--data", str(data), "--metrics", "all"]) == 0
    defaults = asked[1]
    assert (len(defaults["inputs"]), defaults["truncation"], defaults["removal"]) == (40, True, "delete")
    assert (defaults["metrics"], defaults["methods"][0], defaults["options"]) == ("all", "relevance", None)


def test_every_file_holds_the_comparison(capsys, asked, data, tmp_path):
    names = {name: tmp_path / name for name in ("c.json", "c.md", "c.html", "c.png")}
    flags = ("--json", "--markdown", "--html", "--plot")
    files = [part for flag, path in zip(flags, names.values()) for part in (flag, str(path))]
    assert main(["compare", "--data", str(data), "--n", "3", *files]) == 0
    printed = capsys.readouterr().out
    assert all(f"Written: {names[name]}" in printed for name in ("c.md", "c.html", "c.png"))
    saved = json.loads(names["c.json"].read_text(encoding="utf-8"))
    assert Comparison.from_dict(saved) == made()
    assert saved["data"] == {"name": str(data), "found": 40, "drawn": 3, "empty": 2}
    assert names["c.md"].read_text(encoding="utf-8") == made().to_markdown()
    assert names["c.html"].read_text(encoding="utf-8") == made().to_html()
    assert names["c.png"].read_bytes().startswith(b"\x89PNG")
    assert main(["compare", "--data", str(data), "--json", "-"]) == 0
    assert Comparison.from_dict(json.loads(capsys.readouterr().out)) == made()


def test_a_method_that_failed_is_status_1_and_named_even_when_quiet(capsys, monkeypatch, data):
    broken = made({"head": "this model\nhas none"})
    monkeypatch.setattr("hf_attn_mi.cli.compare.compare", lambda *a, **k: broken)
    assert main(["compare", "--data", str(data)]) == 1
    output = capsys.readouterr()
    assert "failed: head: this model" in output.out
    assert output.err == ""
    assert main(["compare", "--data", str(data), "--quiet"]) == 1
    assert capsys.readouterr().err == "hf-attn-mi: warning: head failed: this model has none\n"


def test_refusals_come_before_the_work(capsys, asked, data, tmp_path):
    empty, plain = tmp_path / "empty.txt", tmp_path / "plain.csv"
    empty.write_text("\n \n", encoding="utf-8")
    plain.write_text("words,label\na,1\n", encoding="utf-8")
    folder = tmp_path / "none"
    for arguments, words in (
        (["--data", str(tmp_path / "none.txt")], "there is no file"),
        (["--data", str(empty)], "there is no text in it"),
        (["--data", str(plain)], "the texts are looked for in"),
        (["--data", str(data), "--n", "0"], "--n must be 1 or more, not 0"),
        (["--data", str(data), "--json", str(folder / "c.json")], "does not exist"),
        (["--data", str(data), "--html", str(folder / "c.html")], "does not exist"),
        (["--data", str(data), "--markdown", str(tmp_path)], "is a directory"),
        (["--data", str(data), "--plot", "c.doc"], "not as '.doc'"),
        (["--data", str(data), "--options", "{lime: 1}"], "--options is not JSON"),
        (["--data", str(data), "--options", '{"lime": {}}'], "--options: 'lime' is not compared"),
        (["--data", str(data), "--options", '{"random": 3}'], "'random' needs an object of its settings"),
        (["--data", str(data), "--rationales"], "row 0 of the data has no ['tokens', 'rationale'], but ['text']"),
        (["--data", str(data), "--model", str(tmp_path)], "--model"),
    ):
        assert words in refused(capsys, "compare", *arguments)
    assert asked == []


def test_what_compare_refuses_is_one_line(capsys, data):
    few = ["compare", "--data", str(data), "--n", "2"]
    assert "rationales" in refused(capsys, *few, "--metrics", "auprc")
    assert "seed" in refused(capsys, *few, "--seed", "-1")
    assert "batch_size" in refused(capsys, *few, "--batch-size", "0")


def test_wrong_usage_exits_with_2(capsys):
    for arguments in ([], ["--data", "f", "--methods", "magic"], ["--data", "f", "--removal", "burn"]):
        with pytest.raises(SystemExit) as caught:
            main(["compare", *arguments])
        assert caught.value.code == 2
        assert "usage: hf-attn-mi compare" in capsys.readouterr().err


# --- the draw -----------------------------------------------------------------------------------------------------


def test_a_draw_is_in_order_repeatable_and_even(data):
    first = draw_texts(str(data), 7, seed=1)
    numbers = [int(text.split()[1]) for text in first.texts]
    assert numbers == sorted(set(numbers))
    assert draw_texts(str(data), 7, seed=1) == first != draw_texts(str(data), 7, seed=2)
    assert (first.found, first.empty, first.rationales) == (40, 2, None)
    everything = draw_texts(str(data), 40)
    assert everything.texts == [f"text {i}" for i in range(40)] == draw_texts(str(data), 1000).texts
    times = Counter(text for seed in range(400) for text in draw_texts(str(data), 10, seed=seed).texts)
    assert len(times) == 40
    # Each text is in a draw with probability 1/4: 100 times expected, standard deviation 8.7.
    assert max(abs(count - 100) for count in times.values()) < 4.5 * 8.7


def marked(tmp_path, *rows, name="rows.jsonl.gz"):
    path = tmp_path / name
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


def test_rationales_are_the_characters_of_the_marked_words(tmp_path):
    generator = random.Random(0)
    words = ["a", "rather", "don't", "film", ",", "naïve", "\U0001f600"]
    rows = []
    for _ in range(30):
        tokens = generator.choices(words, k=generator.randint(1, 9))
        gaps = generator.choices(["", " ", "  ", "\n"], k=len(tokens))
        text = "".join(gap + word for gap, word in zip(gaps, tokens))
        rows.append({"text": text, "tokens": tokens, "mine": [generator.randint(0, 1) for _ in tokens]})
    found = draw_texts(marked(tmp_path, *rows), 30, rationales="mine")
    assert found.texts == [row["text"] for row in rows]
    for row, spans in zip(rows, found.rationales, strict=True):
        wanted = [word for word, flag in zip(row["tokens"], row["mine"]) if flag]
        assert [row["text"][start:end] for start, end in spans] == wanted


def test_without_a_text_the_words_are_joined_as_rationale_spans_has_it(tmp_path):
    tokens, flags = ["a", "quietly", "moving", "film"], [0, 1, 1, 0]
    found = draw_texts(marked(tmp_path, {"tokens": tokens, "rationale": flags}), 5, rationales="rationale")
    assert found.texts == ["a quietly moving film"]
    covered = {i for start, end in found.rationales[0] for i in range(start, end)}
    ((start, end),) = rationale_spans(tokens, flags)
    assert covered == set(range(start, end)) - {found.texts[0].index(" moving")}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tokens": ["a", "b"], "rationale": [1]}, "0 or 1 for each of 2 words is needed, not 1 entries"),
        ({"tokens": ["a", "b"], "rationale": [1, 2]}, "0 or 1 for each of 2 words"),
        ({"tokens": ["a", "b"], "rationale": "01"}, "not str"),
        ({"tokens": ["a", " "], "rationale": [0, 1]}, "words that are not empty"),
        ({"tokens": "ab", "rationale": [0, 1]}, "'tokens' must be a list of words"),
        ({"tokens": ["a", "b"], "rationale": [0, 1], "text": "a c"}, "character 2 of its text does not begin"),
        ({"tokens": ["a", "b"]}, "row 1 of the data has no ['rationale']"),
        ("a b", "row 1 of the data has no ['tokens', 'rationale'], but str"),
    ],
)
def test_rationales_that_do_not_fit_are_refused(capsys, tmp_path, row, words):
    good = {"tokens": ["a", "b"], "rationale": [0, 1]}
    message = refused(capsys, "compare", "--data", marked(tmp_path, good, row), "--rationales")
    assert words in message
    assert "row 1" in message


# --- the whole, on the embedded model -----------------------------------------------------------------------------


def test_the_embedded_model_from_a_file_to_the_table(capsys, tmp_path, demo):
    rows = [{"tokens": text.split(), "rationale": [i == 1 for i, _ in enumerate(text.split())]} for text in TEXTS]
    rows = [{**row, "rationale": [int(flag) for flag in row["rationale"]]} for row in rows]
    path = marked(tmp_path, *rows)
    call = ["compare", "--data", path, "--methods", "relevance", "random", "--rationales", "--seed", "3"]
    assert main([*call, "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)
    found = Comparison.from_dict(data)
    wanted = compare(
        demo[0],
        [" ".join(row["tokens"]) for row in rows],
        tokenizer=demo[1],
        methods=["relevance", "random"],
        seed=3,
        rationales=[rationale_spans(row["tokens"], row["rationale"]) for row in rows],
    )
    assert (found.values, found.table, found.tests) == (wanted.values, wanted.table, wanted.tests)
    assert {"token_f1", "auprc"} < set(found.metrics)


def test_long_texts_are_cut_unless_that_is_refused(capsys, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("good " * 300 + "\n" + "dull\n", encoding="utf-8")
    call = ["compare", "--data", str(path), "--methods", "relevance", "random"]
    assert "302 tokens" in refused(capsys, *call, "--no-truncate")
    assert main(call) == 0
    output = capsys.readouterr()
    assert output.err.startswith("hf-attn-mi: warning: input 0 was cut from 302 to 256 tokens")
    assert output.err.count("\n") == 1
    assert "relevance" in output.out
