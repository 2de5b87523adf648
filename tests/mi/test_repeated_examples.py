"""Where the guarantees do not hold, or a number is left out, a warning says so."""

import pytest
import torch

from hf_attn_mi.mi import mutual_information

DRAW = torch.Generator().manual_seed(0)
STATES = torch.randn(100, 4, generator=DRAW)
CLASSES = torch.arange(100) % 2


def warnings_of(states, outputs, **options):
    return mutual_information(states, outputs, permutations=2, **options).warnings


def test_copies_are_named():
    """Ten copies of each example: neighbors know its class, and the lower bound is above the truth, zero."""
    noise = torch.randint(2, (100,), generator=torch.Generator().manual_seed(1))
    found = mutual_information(STATES.repeat(10, 1), noise.repeat(10), permutations=2)
    assert found.lower_bound > 0.1
    assert "900 of 1000 examples have the states and the outputs of another one" in found.warnings[0]
    assert "if these are copies, leave them out" in str(found)
    assert "leave them out" in found._repr_html_()
    measured = torch.randn(100, generator=DRAW)
    assert "100 of 200 examples have" in warnings_of(STATES.repeat(2, 1), measured.repeat(2))[0]


def test_what_repeats_by_chance_is_not_called_a_copy():
    counts = torch.randint(3, (400, 2), generator=torch.Generator().manual_seed(2)).float()
    assert warnings_of(counts, torch.arange(400) % 2) == ()
    same_states = STATES[:50].repeat(2, 1)
    assert warnings_of(same_states, torch.rand(100, 2, generator=DRAW).softmax(1)) == ()  # one text, other outputs
    two_sites = torch.stack([torch.ones(100, 4), STATES])
    assert not any("another one" in text for text in warnings_of(two_sites, CLASSES))
    few = torch.cat([STATES, STATES[:1]])
    assert warnings_of(few, torch.cat([CLASSES, CLASSES[:1]])) == ()


def test_many_equal_values_of_a_continuous_output_are_named():
    values = STATES[:, 0] + torch.randn(100, generator=DRAW)
    assert warnings_of(STATES, values) == ()
    half = torch.where(CLASSES == 0, 0.0, values)
    assert "takes 51 values in 100 examples, 50 of which share theirs" in warnings_of(STATES, half)[0]


def test_features_that_vary_as_little_as_rounding_are_named():
    """A feature of 1e8 whose variation of one is information."""
    shifted = STATES.double() + 4.0 * CLASSES[:, None]
    found = mutual_information(shifted + 1e8, CLASSES, permutations=2)
    assert found.nats == 0
    assert "4 of 4 features vary by less than a millionth of their size" in found.warnings[0]
    one = mutual_information(torch.cat([shifted, shifted[:, :1] + 1e8], 1), CLASSES, permutations=2)
    assert "1 of 5 features vary" in one.warnings[0]
    assert "all 100 states are the same" in warnings_of(torch.ones(100, 4), CLASSES)[0]
    assert warnings_of(torch.cat([torch.ones(100, 1), STATES], 1), CLASSES) == ()


def test_warnings_and_lines_have_the_names_of_the_sites():
    states = torch.stack([STATES, torch.ones(100, 4)])
    found = mutual_information(states, CLASSES, permutations=2, names=["layer 3", "layer 4"])
    assert found.warnings == ("layer 4: all 100 states are the same: no information",)
    assert [line.split(":")[0] for line in str(found).splitlines()[2:4]] == ["layer 3", "layer 4"]
    assert "<th>layer 4</th>" in found._repr_html_()
    labels = [tick.get_text() for tick in found.plot().axes[0].get_yticklabels()]
    assert labels == ["layer 3", "layer 4"]
    with pytest.raises(ValueError, match="a name for each of the 2 sites"):
        mutual_information(states, CLASSES, names=["one"])
