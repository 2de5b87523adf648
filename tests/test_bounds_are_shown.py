"""Whatever shows an estimate of mutual information shows its bounds beside it."""

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import hf_attn_mi
from hf_attn_mi.cli import main
from hf_attn_mi.results.report_data import _information
from hf_attn_mi.tasks.token_information import TokenInformation
from tests.tasks.sample_profile import LAYERS, made

ROOT = Path(__file__).parents[1]
SOURCES = [
    *sorted((ROOT / "hf_attn_mi").rglob("*.py")),
    *sorted((ROOT / "examples").rglob("*.py")),
    *sorted((ROOT / "scripts").rglob("*.py")),
]
DEFINED_IN = ("hf_attn_mi/mi/", "hf_attn_mi/kernels/")  # where estimates are made
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ENDS = ("lower_bound", "upper_bound")
COLUMN = re.compile(r"'nats'|<th>nats</th>|\bnats=tensor")  # the estimate in a dictionary, a table and a repr


def shown(value):
    return f"{value:.3f}"


def ends_of(profile):
    """(estimate, lower bound, upper bound) of each site."""
    found = profile.information
    return list(zip(*(getattr(found, name).tolist() for name in ("nats", *ENDS)), strict=True))


def mappings(value):
    """Every mapping inside of plain data."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from mappings(item)


def with_estimates(data):
    """The mappings of plain data that hold an estimate."""
    found = [one for one in mappings(data) if "nats" in one]
    assert found
    return found


def readers_of_estimates(path):
    """(name, text) of each function of a file that reads an estimate: `.nats`, or the name in a string of its own."""
    text = path.read_text(encoding="utf-8")
    if "nats" not in text:
        return
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef):
            continue
        units = {
            id(value)
            for one in ast.walk(function)
            if isinstance(one, ast.Dict)
            for key, value in zip(one.keys, one.values)
            if isinstance(key, ast.Constant) and key.value == "unit"
        }
        units |= {id(one.value) for one in ast.walk(function) if isinstance(one, ast.keyword) and one.arg != "names"}
        for one in ast.walk(function):
            attribute = isinstance(one, ast.Attribute) and one.attr == "nats"
            if attribute or (isinstance(one, ast.Constant) and one.value == "nats" and id(one) not in units):
                yield function.name, ast.get_source_segment(text, function)
                break


def test_functions_that_read_an_estimate_read_its_bounds():
    lacking, count = [], 0
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith((*DEFINED_IN, "scripts/generate_")):  # tables of errors against a known truth
            continue
        for function, text in readers_of_estimates(path):
            count += 1
            if "BOUNDS" not in text and not all(end in text for end in ENDS):
                lacking.append(f"{name}: {function}")
    assert count >= 8
    assert lacking == []


def test_code_of_the_documentation_that_prints_an_estimate_prints_its_bounds():
    blocks = [
        (page.relative_to(ROOT).as_posix(), block)
        for page in PAGES
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        if ".nats" in block or "= mutual_information(" in block
    ]
    assert len(blocks) >= 2
    whole = "print(result)"  # the text form begins with the bounds: tests/mi
    assert [name for name, block in blocks if not (".lower_bound" in block or whole in block)] == []


def test_outputs_of_notebooks_with_an_estimate_have_its_bounds():
    outputs = [
        (path.name, "".join(text))
        for path in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", ())
        for kind, text in output.get("data", {}).items()
        if kind.startswith("text/")
    ]
    found = [(name, text) for name, text in outputs if COLUMN.search(text)]
    assert found
    assert [name for name, text in found if not all(end in text for end in ENDS)] == []


@pytest.mark.parametrize("form", ["to_text", "to_html", "_repr_html_", "__str__"])
def test_texts_of_a_profile(form):
    profile = made()
    text = getattr(profile, form)()
    for nats, lower, upper in ends_of(profile):
        assert f"{shown(lower)} to {shown(upper)}; {shown(nats)} [" in text
    assert text.index("lower bound to upper bound") < text.index("estimate")


def test_data_of_a_profile(tmp_path):
    profile = made()
    profile.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "profile.json").read_text(encoding="utf-8"))
    for data in (profile.to_dict(), profile.information.to_dict(), profile.ceiling_check(), saved):
        for one in with_estimates(data):
            assert set(ENDS) <= set(one)
    for table in (profile.to_pandas(), profile.information.to_pandas()):
        names = list(table.columns)
        assert names.index("lower_bound") < names.index("upper_bound") < names.index("nats")
    check = profile.ceiling_check()
    assert (check["nats"], check["lower_bound"], check["upper_bound"]) == ends_of(profile)[profile.find(6, "first")]


def test_forms_of_an_array_result():
    information = made().information
    for text in (repr(information), information._repr_html_()):
        assert text.index("lower_bound") < text.index("upper_bound") < COLUMN.search(text).start()
    assert "hold for independent examples of any distribution" in information._repr_html_()


def test_figures():
    profile = made()
    for figure in (profile.plot(), profile.information.plot()):
        (ax,) = figure.axes
        drawn = {y for line in ax.get_lines() for y in (*line.get_xdata(), *line.get_ydata())}
        for _, lower, upper in ends_of(profile):
            assert {lower, upper} <= drawn
        legend = " ".join(text.get_text() for text in figure.legends[0].get_texts())
        assert "lower bound" in legend
        assert "upper bound" in legend


def test_the_command_line(capsys, monkeypatch, tmp_path):
    profile = made()
    monkeypatch.setattr(hf_attn_mi, "fit_information", lambda *_, **__: profile)
    assert main(["mi", "--data", "f.txt", "--json", str(tmp_path / "mi.json")]) == 0
    printed = capsys.readouterr().out
    for nats, lower, upper in ends_of(profile):
        assert f"{shown(lower)} to {shown(upper)}; {shown(nats)} [" in printed
    assert "(bounds " in printed.splitlines()[-1]
    written = json.loads((tmp_path / "mi.json").read_text(encoding="utf-8"))
    assert len(with_estimates(written)) == len(profile.sites) + 1
    for one in with_estimates(written):
        assert set(ENDS) <= set(one)


def test_explanations_and_the_report():
    profile = made()
    layers = [
        {"layer": layer, "kl": [], "mi": TokenInformation._of_layer(SimpleNamespace(profile=profile), layer)}
        for layer in profile.layers
    ]
    for one in with_estimates(layers):
        assert set(ENDS) <= set(one)
    shown_in_report = _information({"layers": layers, "ceiling": profile.ceiling, "n": profile.n})
    for layer in shown_in_report["layers"]:
        for name, values in layer["mi"].items():
            nats, lower, upper = ends_of(profile)[profile.find(layer["layer"], name)]
            assert values[0] == pytest.approx(nats, rel=1e-3)
            assert values[3:] == pytest.approx([lower, upper], rel=1e-3)
    assert len(shown_in_report["layers"]) == len({layer for places in LAYERS.values() for layer in places})
