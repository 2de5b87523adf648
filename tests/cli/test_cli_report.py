"""`hf-attn-mi report`: the page, its options, and what is refused before the work begins."""

import json

from hf_attn_mi import Report
from hf_attn_mi.cli import main
from tests.cli.command_line import ROOT, refused
from tests.media_models import image_processor, media_model, picture

TEXT = "A quietly moving film."


def test_the_page_and_the_data_are_written(tmp_path, capsys):
    page, data = tmp_path / "page.html", tmp_path / "data.json"
    arguments = ["--label", "positive", "--also", "attention", "--attention", "none"]
    assert main(["report", TEXT, "--html", str(page), "--json", str(data), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "because of" in printed
    assert "Gold label positive: correct." in printed
    assert str(page) in printed
    result = Report.from_dict(json.loads(data.read_text(encoding="utf-8")))
    assert page.read_text(encoding="utf-8") == result.to_html()
    assert [one.info["method"] for one in result.items[0].methods] == ["attention"]


def test_a_second_model_stands_beside_the_first(tmp_path, capsys):
    model = str(ROOT / "tests" / "golden" / "models" / "demo_model")
    page = tmp_path / "page.html"
    arguments = ["--second-model", model, "--also", "attention", "--attention", "none"]
    assert main(["report", TEXT, "--html", str(page), *arguments]) == 0
    assert capsys.readouterr().out.count("because of") == 2
    assert '"second":{"title"' in page.read_text(encoding="utf-8")


def test_quiet_prints_nothing(tmp_path, capsys):
    arguments = ["--also", "attention", "--attention", "none", "--quiet"]
    assert main(["report", TEXT, "--html", str(tmp_path / "page.html"), *arguments]) == 0
    assert capsys.readouterr().out == ""


def test_images_are_read_from_files(tmp_path):
    media_model("vit").save_pretrained(tmp_path / "vit")
    image_processor().save_pretrained(tmp_path / "vit")
    picture().save(tmp_path / "one.png")
    page = tmp_path / "page.html"
    arguments = ["--image", str(tmp_path / "one.png"), "--model", str(tmp_path / "vit"), "--html", str(page)]
    assert main(["report", *arguments, "--quiet", "--also", "attention"]) == 0
    assert '"uri":"data:image/' in page.read_text(encoding="utf-8")


def test_what_cannot_be_used_is_left_out_with_status_1(tmp_path, capsys):
    data = tmp_path / "data.json"
    arguments = [
        "--errors",
        "skip",
        "--stride",
        "8",
        "--target",
        "positive",
        "--target",
        "negative",
        "--attention",
        "none",
    ]
    texts = [TEXT, "\u200b"]
    files = ["--html", str(tmp_path / "page.html"), "--json", str(data), "--also", "attention"]
    assert main(["report", *texts, *arguments, *files]) == 1
    assert "Input 1 was skipped" in capsys.readouterr().out
    result = Report.from_dict(json.loads(data.read_text(encoding="utf-8")))
    assert [one.target_name for one in result.items[0].explanations] == ["positive", "negative"]
    assert result.items[0].explanation.info["windows"]["stride"] == 8


def test_wrong_options_are_refused_by_name(capsys, tmp_path):
    for arguments, words in (
        (["--html", str(tmp_path / "page.txt")], "its name must end in .html"),
        (["--label", "positive", "--label", "negative"], "--label: 2 labels for 1 input;"),
        (["--label", "good"], "labels[0] is 'good'"),
        (["--compare", "--image", __file__], "--image takes files instead of texts"),
        (["--also", "atention"], "Did you mean 'attention'?"),
        (["--method", "nothing"], "--method: 'nothing' is not known"),
        (["--attention", "some"], "some"),
        (["--profile", str(tmp_path / "none")], "there is no such folder"),
    ):
        assert words in refused(capsys, "report", TEXT, *arguments)


def test_methods_are_compared_on_the_target_of_the_page(capsys, tmp_path):
    pages = [tmp_path / "page.html", tmp_path / "page.json"]
    words = ["A warm film.", "--compare", "--html", str(pages[0]), "--json", str(pages[1]), "--attention", "none"]
    assert main(["report", *words, "--target", "negative", "--target", "positive"]) == 0
    comparison = json.loads(pages[1].read_text(encoding="utf-8"))["comparison"]
    assert comparison["info"]["target"] == "negative"
