"""`hf-attn-mi explain --options` and `--profile`."""

import json
import warnings

import pytest
import torch

from hf_attn_mi import explain
from hf_attn_mi.cli import main
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.tasks.fit_information import fit_information
from tests.cli.command_line import refused
from tests.sample_models import TEXTS, distance, tiny_bert

WORDS = ["a", "warm", "funny", "wise", "dull", "slow", "film", "story", "of", "with", "charm", "joy", "but", "never"]


def test_options_reach_the_method(capsys, demo):
    call = ["explain", TEXTS[0], "--method", "integrated_gradients", "--json", "-"]
    assert main([*call, "--options", '{"steps": 3, "baseline": "mask"}']) == 0
    (data,) = json.loads(capsys.readouterr().out)
    found = Explanation.from_dict(data).scores
    wanted = explain(demo[0], TEXTS[0], method="integrated_gradients", options={"steps": 3, "baseline": "mask"})
    plain = explain(demo[0], TEXTS[0], method="integrated_gradients")
    assert distance(found, wanted.scores) < 1e-6
    assert distance(plain.scores, wanted.scores) > 1e-3


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("lime", '{"steps": 20}', "method 'lime' has no option 'steps'"),
        ("relevance", '{"steps": 20}', "relevance"),
        ("integrated_gradients", '{"steps": "many"}', "steps"),
        ("integrated_gradients", "{'steps': 20}", "--options is not JSON"),
        ("integrated_gradients", "[20]", "--options is a JSON list; an object is needed, such as '{\"steps\": 20}'"),
        ("integrated_gradients", "20", "--options is a JSON int"),
        ("integrated_gradients", '{"steps": NaN}', "NaN is no JSON"),
        ("integrated_gradients", "[" * 100000, "--options is not JSON"),
    ],
)
def test_wrong_options_are_refused_in_one_line(capsys, method, options, words):
    assert words in refused(capsys, "explain", "dull", "--method", method, "--options", options)


@pytest.fixture(scope="module")
def saved(demo, tmp_path_factory):
    """A profile of the embedded model, and its folder."""
    generator = torch.Generator().manual_seed(0)
    texts = [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (9,), generator=generator)) for _ in range(60)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few texts have no split halves
        profile = fit_information(
            demo[0], texts, tokenizer=demo[1], layers=[0, 2], estimator="probe", permutations=20, seed=0
        )
    path = tmp_path_factory.mktemp("saved") / "background"
    profile.save(path)
    return profile, path


def test_a_background_adds_what_single_states_tell(capsys, saved, demo):
    profile, path = saved
    assert main(["explain", TEXTS[0], "--profile", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("What single states tell about the output"))
    assert f"60 texts, ceiling of their mean {profile.ceiling:.3g}" in lines[head]
    wanted = explain(demo[0], TEXTS[0], profile=profile)
    for line, layer in zip(lines[head + 1 :], wanted.information["layers"], strict=True):
        ranked = sorted((-kl, place) for place, kl in enumerate(layer["kl"]) if not wanted.special[place])[:3]
        assert line == f"  layer {layer['layer']}: " + ", ".join(
            f"{wanted.tokens[place]!r} {-kl:.3g}" for kl, place in ranked
        )
    assert main(["explain", TEXTS[0], "--profile", str(path), "--json", "-"]) == 0
    (data,) = json.loads(capsys.readouterr().out)
    found = Explanation.from_dict(data).information
    assert found["layers"][1]["kl"] == pytest.approx(wanted.information["layers"][1]["kl"], rel=1e-5)


def test_without_a_background_nothing_is_said_of_information(capsys):
    assert main(["explain", TEXTS[0]]) == 0
    assert "single states" not in capsys.readouterr().out


def test_a_background_that_does_not_fit_is_refused(capsys, saved, tmp_path, demo):
    assert "is no saved profile" in refused(capsys, "explain", "dull", "--profile", str(tmp_path / "none"))
    tiny_bert().save_pretrained(tmp_path)
    demo[1].save_pretrained(tmp_path)
    message = refused(capsys, "explain", "dull", "--profile", str(saved[1]), "--model", str(tmp_path))
    assert "background was fitted for" in message
