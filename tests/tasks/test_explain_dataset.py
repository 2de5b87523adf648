"""`explain_dataset`: the scores are those of `explain`, and no interruption loses or repeats a row."""

import gzip
import json
import shutil

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import torch
from transformers import AutoTokenizer

from hf_attn_mi import InvalidInputError, explain, explain_dataset, load_results
from hf_attn_mi.data.run_folder import RunFolder
from hf_attn_mi.tasks import corpus_report
from hf_attn_mi.tasks.corpus_shard import ShardExplainer
from tests.sample_models import DEMO, TEXTS, load_demo

ROWS = [{"id": f"r{i}", "text": f"{TEXTS[i % 5]} Take {i}.", "label": i % 2} for i in range(23)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run over `ROWS` in shards of five; tests copy it."""
    model, tokenizer = load_demo()
    output = tmp_path_factory.mktemp("runs") / "out"
    run = explain_dataset(model, ROWS, output=output, tokenizer=tokenizer, shard_size=5)
    return output, run


@pytest.fixture
def output(finished, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(finished[0], tmp_path / "out")


def go_on(output, rows=ROWS, **options):
    model, tokenizer = load_demo()
    return explain_dataset(model, rows, output=output, tokenizer=tokenizer, **{"shard_size": 5, **options})


def stored(output):
    return {one.row: one for one in load_results(output).with_rows()}


def assert_equal_results(left, right):
    """Complete, none twice, and equal to 1e-6."""
    first, second = list(load_results(left).with_rows()), list(load_results(right).with_rows())
    assert [one.row for one in first] == [one.row for one in second]
    assert len({one.row for one in first}) == len(first)
    for one, other in zip(first, second):
        assert (one.id, one.label, one.correct) == (other.id, other.label, other.correct)
        assert one.explanation.tokens == other.explanation.tokens
        torch.testing.assert_close(one.explanation.scores, other.explanation.scores, atol=1e-6, rtol=0)


def test_the_results_are_those_of_explain(finished, demo):
    output, run = finished
    assert (run.rows, run.failed, run.shards, run.missing, run.done, run.complete) == (23, 0, 5, 0, 23, True)
    expected = explain(demo[0], [row["text"] for row in ROWS], tokenizer=demo[1], layers="none")
    found = list(load_results(output).with_rows())
    assert [one.row for one in found] == list(range(23))
    assert [one.id for one in found] == [row["id"] for row in ROWS]
    for one, other, row in zip(found, expected, ROWS):
        ours = one.explanation
        torch.testing.assert_close(ours.scores, other.scores, atol=2e-5, rtol=0)
        for name in ("tokens", "texts", "offsets", "sequence_ids", "word_ids", "special", "target", "target_name"):
            assert getattr(ours, name) == getattr(other, name)
        assert ours.probability == pytest.approx(other.probability, abs=1e-5)
        assert one.correct == (other.target == row["label"])
        assert {**ours.info, "seconds": 0} == {**other.info, "seconds": 0}


def test_a_finished_run_is_left_alone(output):
    before = {path: path.stat().st_mtime_ns for path in (output / "data").iterdir()}
    run = go_on(output)
    assert (run.done, run.rate, run.complete) == (0, None, True)
    assert {path: path.stat().st_mtime_ns for path in (output / "data").iterdir()} == before
    assert [entry["rows"] for entry in load_results(output).run["runs"]] == [23, 0]


@pytest.mark.parametrize(
    "damage",
    {
        "missing": lambda path: path.unlink(),
        "torn": lambda path: path.write_bytes(path.read_bytes()[:-300]),
        "empty": lambda path: path.write_bytes(b""),
        "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
        "another file": lambda path: pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path),
        "another shard": lambda path: shutil.copy(path.with_name("shard-00000.parquet"), path),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_a_damaged_shard_is_done_again_and_nothing_else(output, finished, damage):
    damage[1](output / "data" / "shard-00003.parquet")
    assert go_on(output).done == 5
    assert_equal_results(output, finished[0])


TORN = {"gone": None, "empty": b"", "torn": b'{"type": "hf_attn_mi.Run", "sett', "a list": b"[]", "bytes": b"\xff\x00"}


@pytest.mark.parametrize("content", TORN.values(), ids=list(TORN))
def test_a_lost_or_torn_run_json_is_restored_from_the_shards(output, finished, content):
    path = output / "run.json"
    settings = json.loads(path.read_text())["settings"]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (output / "data" / "shard-00001.parquet").unlink()
    assert go_on(output).done == 5
    assert json.loads(path.read_text())["settings"] == settings
    assert_equal_results(output, finished[0])
    path.write_bytes(b"{")
    with pytest.raises(InvalidInputError, match=r"options\.method was 'relevance', is now 'attention'"):
        go_on(output, method="attention")


def test_other_settings_are_refused_by_name(output, demo, fresh):
    differences = {
        r"options\.method was 'relevance', is now 'attention'": {"method": "attention"},
        r"shard_size was 5, is now 7": {"shard_size": 7},
        r"options\.layers was 'none', is now 'summary'": {"layers": "summary"},
        r"options\.target was None, is now 1": {"target": 1},
        r"options\.truncation was False, is now True": {"truncation": True},
        r"data\.digest was": {"rows": [*ROWS[:-1], {**ROWS[-1], "text": "Another text."}]},
        r"data\.rows was 23, is now 22": {"rows": ROWS[:-1]},
        r"columns\.label was 'label', is now None": {"columns": {"label": None}},
    }
    for message, options in differences.items():
        with pytest.raises(InvalidInputError, match=message):
            go_on(output, **options)
    model, tokenizer = fresh
    with torch.no_grad():
        next(model.parameters())[0, 0] += 0.5
    with pytest.raises(InvalidInputError, match=r"model\.weights was"):
        explain_dataset(model, ROWS, output=output, tokenizer=tokenizer, shard_size=5)
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    tokenizer.add_tokens(["moving film"])
    with pytest.raises(InvalidInputError, match="tokenizer was"):
        explain_dataset(demo[0], ROWS, output=output, tokenizer=tokenizer, shard_size=5)
    assert go_on(output, batch_size=3, errors="raise").done == 0  # no number depends on these


def test_another_version_is_refused(output, monkeypatch):
    monkeypatch.setattr("hf_attn_mi.tasks.corpus_settings.library_versions", lambda: {"torch": "1.0"})
    with pytest.raises(InvalidInputError, match=r"versions\.torch was '.*', is now '1\.0'"):
        go_on(output)


def test_a_second_run_into_a_folder_is_refused(output):
    folder = RunFolder(output)
    with folder.locked("first-run"), pytest.raises(InvalidInputError, match="being written by run first-run"):
        go_on(output)
    assert go_on(output).complete


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InvalidInputError, match=r"holds thesis\.txt and no run\.json"):
        go_on(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InvalidInputError, match="is a file"):
        go_on(tmp_path / "thesis.txt")
    with pytest.raises(InvalidInputError, match="parent folder does not exist"):
        go_on(tmp_path / "no" / "such")


@pytest.mark.parametrize("name", ["run.json", "data/shard-00000.parquet"])
def test_files_of_other_programs_are_not_written_over(name, tmp_path):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    if path.suffix == ".json":
        path.write_text('{"loss": 0.25}')
    else:
        pd.DataFrame({"loss": [0.25]}).to_parquet(path)
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match="was not written by a run, and would be written over"):
        go_on(tmp_path / "out")
    assert path.read_bytes() == before


def change_column(path, name, value):
    table = pyarrow.parquet.read_table(path)
    field, place = table.schema.field(name), table.schema.get_field_index(name)
    column = pyarrow.array([value] * len(table), field.type)
    changed = table.set_column(place, field, column).replace_schema_metadata(table.schema.metadata)
    pyarrow.parquet.write_table(changed, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shards: shards[1].rename(shards[0]), "no shard of this run with this number"),
        (lambda shards: shutil.copy(shards[1], shards[2]), "no shard of this run with this number"),
        (lambda shards: pd.DataFrame({"a": [1]}).to_parquet(shards[1]), "no shard of this run with this number"),
        (lambda shards: change_column(shards[1], "scores", None), "was changed since it was written"),
        (lambda shards: change_column(shards[1], "details", "{bad"), "was changed since it was written"),
    ],
)
def test_shards_that_are_not_what_they_were_are_not_read(output, change, message):
    change(sorted((output / "data").iterdir()))
    with pytest.raises(InvalidInputError, match=message):
        list(load_results(output))


def test_shards_of_two_runs_are_not_read_together(output, tmp_path):
    go_on(tmp_path / "other", target=1)
    shutil.copy(tmp_path / "other" / "data" / "shard-00001.parquet", output / "data")
    with pytest.raises(InvalidInputError, match="are of runs with different settings"):
        list(load_results(output))


def test_a_shard_behind_the_last_one_is_refused(output):
    (output / "data" / "shard-00001.parquet").rename(output / "data" / "shard-00009.parquet")
    with pytest.raises(
        InvalidInputError, match=r"shard-00009\.parquet' is no shard of this run, which has 23 rows in 5"
    ):
        go_on(output)


@pytest.mark.parametrize("stride", [None, 16])
def test_a_row_that_is_no_list_of_words_fails_alone(stride, tmp_path):
    rows = [{"tokens": words} for words in (["A", "warm", "film"], "fine", ["dull", None], ["dull"], "warm")]
    go_on(tmp_path / "out", rows, is_split_into_words=True, stride=stride)
    results = load_results(tmp_path / "out")
    assert [one.row for one in results.with_rows()] == [0, 3]
    reasons = results.errors().set_index("row")["reason"]
    assert list(reasons.index) == [1, 2, 4]
    assert reasons[1] == "row 1 is one string, but is_split_into_words=True: it must be the list of its words."


def test_a_first_shard_without_a_readable_row_is_an_error(tmp_path):
    with pytest.raises(InvalidInputError, match="row 0 has no text in column 'text': it is None"):
        go_on(tmp_path / "out", [{"text": None}] * 5)


def test_an_errors_file_that_holds_something_else_is_refused(tmp_path):
    go_on(tmp_path / "out", ["fine", ""])
    (tmp_path / "out" / "errors" / "shard-00000.jsonl").write_text("3\n")
    with pytest.raises(InvalidInputError, match="a line is no JSON object"):
        load_results(tmp_path / "out").errors()


POISONED = ["fine", None, "", "  \n", "bad \ud800 text", 7, ["a", "b", "c"], "x " * 600, {"text": 3}, "good"]


def test_rows_that_fail_are_in_the_errors_file(tmp_path):
    rows = [{"id": f"p{i}", "text": text, "label": "\ud800"} for i, text in enumerate(POISONED)]
    run = go_on(tmp_path / "out", rows, shard_size=4)
    assert (run.rows, run.failed, run.complete) == (10, 8, True)
    results = load_results(tmp_path / "out")
    assert [one.row for one in results.with_rows()] == [0, 9]
    errors = results.errors()
    assert list(errors["id"]) == [f"p{i}" for i in range(1, 9)]
    assert all(str(row) in reason for row, reason in zip(errors["row"], errors["reason"]))
    assert "lone surrogate" in errors["reason"][3]
    assert "pass truncation=True" in errors["reason"][6]
    with pytest.raises(InvalidInputError, match="row 1 has no text"):
        go_on(tmp_path / "strict", rows, errors="raise")
    assert go_on(tmp_path / "out", rows, shard_size=4).done == 0
    (tmp_path / "out" / "errors" / "shard-00001.jsonl").write_text("{")
    assert go_on(tmp_path / "out", rows, shard_size=4).done == 4  # the errors belong to the shard
    assert len(results.errors()) == 8


def test_lines_of_a_file_that_cannot_be_read_are_errors(tmp_path):
    lines = [
        b'{"text": "fine"}',
        b'{"text": "torn',
        b'{"text": "caf\xe9"}',
        b"[1, 2]",
        b'{"other": 1}',
        b'{"text": "good"}',
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    assert go_on(tmp_path / "out", tmp_path / "rows.jsonl").failed == 4
    reasons = list(load_results(tmp_path / "out").errors()["reason"])
    for words, reason in zip(("line 2", "line 3", "row 3", "row 4"), reasons):
        assert words in reason
    (tmp_path / "rows.csv").write_text("text,label\nfine,1\ntoo,many,cells\ngood,0\n")
    assert go_on(tmp_path / "table", tmp_path / "rows.csv").failed == 1
    assert [one.label for one in load_results(tmp_path / "table").with_rows()] == ["1", "0"]


def test_an_error_about_the_model_stops_at_the_first_shard(tmp_path):
    with pytest.raises(InvalidInputError, match="'postive' is not a label"):
        go_on(tmp_path / "out", target="postive")


def containers(tmp_path):
    """The rows in every container."""
    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "rows.parquet")
    table.to_csv(tmp_path / "rows.csv")
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    return {
        "Dataset": table,
        "IterableDataset": table.to_iterable_dataset(),
        "iterator": iter(ROWS),
        "saved folder": tmp_path / "saved",
        "Parquet": tmp_path / "rows.parquet",
        "CSV": str(tmp_path / "rows.csv"),
        "JSON lines": tmp_path / "rows.jsonl.gz",
        "pandas": pd.DataFrame(ROWS),
        "arrow": pyarrow.Table.from_pylist(ROWS),
    }


def test_every_container_gives_the_same_results(tmp_path, finished):
    for name, rows in containers(tmp_path).items():
        run = go_on(tmp_path / name, rows)
        assert (run.rows, run.shards, run.complete) == (23, 5, True), name
        assert_equal_results(tmp_path / name, finished[0])


def test_a_stream_is_resumed_and_other_rows_in_it_are_refused(tmp_path, finished):
    output = tmp_path / "out"
    go_on(output, iter(ROWS))
    (output / "data" / "shard-00001.parquet").unlink()
    assert go_on(output, iter(ROWS)).done == 5
    assert_equal_results(output, finished[0])
    changed = [ROWS[0], {**ROWS[1], "text": "Another text."}, *ROWS[2:]]
    with pytest.raises(InvalidInputError, match=r"rows 0 to 4 are not those that .*shard-00000"):
        go_on(output, iter(changed))
    with pytest.raises(InvalidInputError, match=r"rows 5 to 7 are not|dataset has 8 rows now"):
        go_on(output, iter(ROWS[:8]))


def test_a_number_of_shards_needs_a_known_length(tmp_path):
    (tmp_path / "rows.txt").write_text("fine\ndull\nwarm\n")
    assert go_on(tmp_path / "file", tmp_path / "rows.txt", num_shards=2).shards == 2
    with pytest.raises(InvalidInputError, match="num_shards needs a data set of known length"):
        go_on(tmp_path / "stream", iter(["fine"]), num_shards=2)


def test_texts_pairs_and_columns_are_read(tmp_path):
    go_on(tmp_path / "texts", ["fine", "dull"])
    assert [one.id for one in load_results(tmp_path / "texts").with_rows()] == ["0", "1"]
    go_on(tmp_path / "pairs", [("fine", "dull"), ["warm", "cold"]])
    assert [one.texts for one in load_results(tmp_path / "pairs")] == [("fine", "dull"), ("warm", "cold")]
    rows = [{"a": "fine", "b": "dull", "gold": "Positive", "goal": 0}]
    go_on(tmp_path / "roles", rows, columns={"text": "a", "text_pair": "b", "label": "gold", "target": "goal"})
    (one,) = stored(tmp_path / "roles").values()
    assert one.explanation.texts == ("fine", "dull")
    assert (one.label, one.explanation.target, one.correct) == ("Positive", 0, None)
    with pytest.raises(InvalidInputError, match=r"columns: \['review'\] are not in the data"):
        go_on(tmp_path / "roles", rows, columns="review")


def test_several_targets_layers_and_long_texts(tmp_path):
    go_on(tmp_path / "all", ROWS[:3], targets="all")
    assert [one.target_name for one in load_results(tmp_path / "all")] == ["negative", "positive"] * 3
    go_on(tmp_path / "layers", ROWS[:3], layers="full")
    model, tokenizer = load_demo()
    expected = explain(model, [row["text"] for row in ROWS[:3]], tokenizer=tokenizer, batch_size=3)
    for one, other in zip(load_results(tmp_path / "layers"), expected):
        assert len(one.layers) == len(other.layers) > 0
        torch.testing.assert_close(one.layers[0].entropy, other.layers[0].entropy, atol=1e-5, rtol=0)
        assert one.layers[0].name == other.layers[0].name
    long = ["A fine film. " * 300, "dull"]
    go_on(tmp_path / "windows", long, stride=16)
    assert load_results(tmp_path / "windows").errors().empty
    assert next(iter(load_results(tmp_path / "windows"))).info["windows"]["count"] > 1
    go_on(tmp_path / "cut", long, truncation=True)
    assert "row 0 was cut" in next(iter(load_results(tmp_path / "cut"))).info["warnings"][0]


def test_datasets_reads_the_shards(finished, tmp_path):
    path = str(finished[0] / "data" / "*.parquet")
    table = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=str(tmp_path))
    assert len(table) == 23
    assert table[3]["tokens"] == list(stored(finished[0])[3].explanation.tokens)
    assert np.allclose(table[3]["scores"], stored(finished[0])[3].explanation.scores)


def test_eraser_lines_have_one_score_a_word(finished, tmp_path):
    load_results(finished[0]).to_eraser(tmp_path / "eraser.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "eraser.jsonl").read_text().splitlines()]
    assert [line["annotation_id"] for line in lines] == [row["id"] for row in ROWS]
    words = stored(finished[0])[0].explanation.to_words()
    assert lines[0]["tokens"] == [word.text for word in words]
    assert lines[0]["rationales"][0]["soft_rationale_predictions"] == [word.score for word in words]


def test_the_columns_that_are_read_and_those_that_are_not_are_named(tmp_path):
    rows = [{"sentence": row["text"], "sentiment": row["label"]} for row in ROWS[:4]]
    dry = go_on(tmp_path / "out", rows, dry_run=True)
    assert "Columns: text from 'sentence'; no gold label; not read: 'sentiment'." in str(dry)
    run = go_on(tmp_path / "out", rows, columns={"label": "sentiment"})
    assert "Columns: text from 'sentence', gold label from 'sentiment'." in str(run)
    with pytest.raises(InvalidInputError, match=r"columns=\{'text': 'review'\} \(--columns text=review\)"):
        go_on(tmp_path / "other", [{"review": "A warm film.", "stars": 3}])


@pytest.mark.parametrize(("short", "rows"), [(0.0, [2, 23]), (1e9, [2, 23, 23 * corpus_report.REPEATS])])
def test_a_dry_run_of_short_texts_fills_batches(tmp_path, monkeypatch, short, rows):
    """50 phrases do not fill the batches of a run: their time is mostly that of a first, small pass."""
    seen, run = [], ShardExplainer.explain
    monkeypatch.setattr(corpus_report, "SHORT", short)
    monkeypatch.setattr(
        ShardExplainer, "explain", lambda shard, *about: (seen.append(len(about[-1])), run(shard, *about))[1]
    )
    assert go_on(tmp_path / "out", dry_run=True).rate > 0
    assert seen == rows


def test_a_dry_run_says_that_labels_name_no_class(tmp_path):
    rows = [{"text": row["text"], "label": 3 + row["label"]} for row in ROWS[:4]]
    assert "gold labels such as '3' name no class of the model" in str(go_on(tmp_path / "out", rows, dry_run=True))
    assert "name no class" not in str(go_on(tmp_path / "out", ROWS[:4], dry_run=True))


def test_names_of_model_and_data_stand_before_their_digests(tmp_path):
    for name in ("first", "second"):
        (tmp_path / f"{name}.txt").write_text(f"A warm film.\nThe {name} one.\n", encoding="utf-8")
    go_on(tmp_path / "out", tmp_path / "first.txt")
    for dry_run in (False, True):
        with pytest.raises(InvalidInputError, match=r"data was 'first.txt', is now 'second.txt'; data.digest was "):
            go_on(tmp_path / "out", tmp_path / "second.txt", dry_run=dry_run)


def test_a_dry_run_writes_nothing(tmp_path):
    run = go_on(tmp_path / "out", dry_run=True)
    assert not (tmp_path / "out").exists()
    assert (run.dry_run, run.complete, run.rows, run.missing) == (True, False, 23, 5)
    assert run.seconds > 0
    assert run.size > 0
    assert "Dry run: 23 rows" in run.to_text()
    assert "Memory a process: more than " in run.to_text()  # 50 rows fill no batch


def test_the_run_says_what_it_did(finished):
    output, run = finished
    record = load_results(output).run
    assert record["rows"] == 23
    assert record["runs"][0]["rows_per_second"] == pytest.approx(run.rate, abs=1e-3)
    assert record["runs"][0]["peak_memory_bytes"] == run.peak_memory > 0
    assert "23 rows, complete" in str(run)
