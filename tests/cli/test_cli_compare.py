"""`hf-attn-mi compare`: what it draws, asks for, prints and writes."""

import json
import sys
import warnings

import pytest

import hf_attn_mi
from hf_attn_mi.cli import main
from hf_attn_mi.cli.inputs import draw_texts
from hf_attn_mi.evaluation import RankMatrix
from hf_attn_mi.results.comparison import Comparison
from hf_attn_mi.tasks.compare import compare
from hf_attn_mi.tasks.rationales import rationale_spans
from tests.cli.command_line import marked, refused
from tests.sample_models import TEXTS

METRICS = ("comprehensiveness", "sufficiency")


def sample_comparison(failures=None):
    """A comparison written by hand; no model was run."""
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
def received(monkeypatch):
    """The calls that `compare` receives; it answers with the comparison written by hand."""
    calls = []

    def answer(model, inputs, **options):
        calls.append({"model": model, "inputs": inputs, **options})
        warnings.warn("one text\nwas cut", stacklevel=2)
        print("progress", file=sys.stderr)
        return sample_comparison()

    monkeypatch.setattr(hf_attn_mi, "compare", answer)
    return calls


def test_the_table_and_what_was_drawn_are_printed(capsys, received, data):
    assert main(["compare", "--data", str(data), "--n", "3"]) == 0
    output = capsys.readouterr()
    sample = f"{data}: 3 of 40 texts, drawn at random (seed 0); 2 rows without a text were skipped."
    assert output.out == f"{sample}\n{sample_comparison().to_text(color='none')}\n"
    assert output.err.splitlines() == ["progress", "hf-attn-mi: warning: one text was cut"]


def test_the_options_arrive(capsys, received, data):
    given = (
        "--n 5 --methods lime random --metrics sufficiency auprc --target negative --removal mask --batch-size 8 "
        "--seed 7 --no-truncate --quiet"
    )
    settings = '{"lime": {"samples": 500}}'
    assert main(["compare", "--data", str(data), *given.split(), "--options", settings]) == 0
    (call,) = received
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
        "is_split_into_words": False,
        "options": {"lime": {"samples": 500}},
        "rationales": None,
    }
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "hf-attn-mi: warning: one text was cut\n")
    assert main(["compare", "--data", str(data), "--metrics", "all"]) == 0
    defaults = received[1]
    assert (len(defaults["inputs"]), defaults["truncation"], defaults["removal"]) == (40, True, "delete")
    assert (defaults["metrics"], defaults["methods"][0], defaults["options"]) == ("all", "relevance", None)


def test_every_file_holds_the_comparison(capsys, received, data, tmp_path):
    names = {name: tmp_path / name for name in ("c.json", "c.md", "c.html", "c.png")}
    flags = ("--json", "--markdown", "--html", "--plot")
    files = [part for flag, path in zip(flags, names.values()) for part in (flag, str(path))]
    assert main(["compare", "--data", str(data), "--n", "3", *files]) == 0
    printed = capsys.readouterr().out
    assert all(f"Written: {names[name]}" in printed for name in ("c.md", "c.html", "c.png"))
    saved = json.loads(names["c.json"].read_text(encoding="utf-8"))
    assert Comparison.from_dict(saved) == sample_comparison()
    assert saved["data"] == {"name": str(data), "found": 40, "drawn": 3, "empty": 2}
    assert names["c.md"].read_text(encoding="utf-8") == sample_comparison().to_markdown()
    assert names["c.html"].read_text(encoding="utf-8") == sample_comparison().to_html()
    assert names["c.png"].read_bytes().startswith(b"\x89PNG")
    assert main(["compare", "--data", str(data), "--json", "-"]) == 0
    assert Comparison.from_dict(json.loads(capsys.readouterr().out)) == sample_comparison()


def test_a_method_that_failed_is_status_1_and_named_even_when_quiet(capsys, monkeypatch, data):
    broken = sample_comparison({"head": "this model\nhas none"})
    monkeypatch.setattr(hf_attn_mi, "compare", lambda *a, **k: broken)
    assert main(["compare", "--data", str(data)]) == 1
    output = capsys.readouterr()
    assert "failed: head: this model" in output.out
    assert output.err == ""
    assert main(["compare", "--data", str(data), "--quiet"]) == 1
    assert capsys.readouterr().err == "hf-attn-mi: warning: head failed: this model has none\n"


def test_refusals_come_before_the_work(capsys, received, data, tmp_path):
    empty, plain = tmp_path / "empty.txt", tmp_path / "plain.csv"
    empty.write_text("\n \n", encoding="utf-8")
    plain.write_text("words,label\na,1\n", encoding="utf-8")
    folder = tmp_path / "none"
    for arguments, words in (
        (["--data", str(tmp_path / "none.txt")], "there is no file or folder of this name"),
        (["--data", str(empty)], "there is no text in it"),
        (["--data", str(plain)], "the texts are looked for in"),
        (["--data", str(data), "--n", "0"], "--n must be 1 or more, not 0"),
        (["--data", str(data), "--json", str(folder / "c.json")], "does not exist"),
        (["--data", str(data), "--html", str(folder / "c.html")], "does not exist"),
        (["--data", str(data), "--html", str(tmp_path / "c.png")], "its name must end in .html"),
        (["--data", str(data), "--markdown", str(tmp_path)], "is a directory"),
        (["--data", str(data), "--plot", "c.doc"], "not as '.doc'"),
        (["--data", str(data), "--options", "{lime: 1}"], "--options is not JSON"),
        (["--data", str(data), "--options", '{"lime": {}}'], "--options: 'lime' is not compared"),
        (["--data", str(data), "--options", '{"random": 3}'], "'random' needs an object of its options"),
        (["--data", str(data), "--rationales"], "row 0 of the data has no ['tokens', 'rationale'], but ['text']"),
        (["--data", str(data), "--model", str(tmp_path)], "--model"),
    ):
        assert words in refused(capsys, "compare", *arguments)
    assert received == []


def test_what_compare_refuses_is_one_line(capsys, data):
    few = ["compare", "--data", str(data), "--n", "2"]
    assert "rationales" in refused(capsys, *few, "--metrics", "auprc")
    assert "seed" in refused(capsys, *few, "--seed", "-1")
    assert "batch_size" in refused(capsys, *few, "--batch-size", "0")


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
    path.write_text("good " * 600 + "\n" + "dull\n", encoding="utf-8")
    call = ["compare", "--data", str(path), "--methods", "relevance", "random"]
    assert "602 tokens" in refused(capsys, *call, "--no-truncate")
    assert main(call) == 0
    output = capsys.readouterr()
    assert output.err.startswith("hf-attn-mi: warning: input 0 was cut from 602 to 512 tokens")
    assert output.err.count("\n") == 1
    assert "relevance" in output.out
