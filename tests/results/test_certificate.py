"""A certificate in words: each broken promise is a reason, and the text names the numbers."""

import math
from dataclasses import replace

import pytest

from hf_attn_mi.errors import InvalidInputError
from tests.results.result_samples import certificate

CERTIFICATE = certificate()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"kept": False}, "prediction changed"),
        ({"relative": 0.01}, "logits changed"),
        ({"relative": math.nan}, "logits changed"),
        ({"residual": 2e-6}, "misses its head's output"),
        ({"sum_error": 2e-6}, "sum of a row"),
        ({"smallest_weight": -1e-9}, "negative"),
        ({"necessity": 0.0}, "can be left out"),
    ],
)
def test_each_broken_promise_is_a_reason(spoil, reason):
    name, value = next(iter(spoil.items()))
    if name in ("kept", "relative"):
        broken = replace(CERTIFICATE, change=replace(CERTIFICATE.change, **spoil))
    elif name == "necessity":
        broken = replace(CERTIFICATE, necessity=value)
    else:
        broken = replace(CERTIFICATE, layers=(replace(CERTIFICATE.layers[0], **spoil), *CERTIFICATE.layers[1:]))
    assert CERTIFICATE.holds
    assert not broken.holds
    assert len(broken.reasons) == 1
    assert reason in broken.reasons[0]
    assert reason in broken.to_text(color="none")
    assert "does NOT hold" in str(broken)


def test_without_a_replaced_row_there_is_nothing_about_replaced_rows():
    layers = tuple(replace(layer, changed=0) for layer in certificate().layers)
    text = certificate(layers=layers).to_text(color="none")
    assert text.startswith("Nothing to certify")
    assert "Every row reaches" not in text
    assert "Necessity" not in text
    assert "Every row reaches" in certificate().to_text(color="none")


def test_the_text_names_the_numbers():
    words = str(CERTIFICATE)
    for piece in (
        "HOLDS",
        f"{CERTIFICATE.change.relative:.1e}",
        f"{CERTIFICATE.necessity:.1e}",
        "The prediction is kept",
        CERTIFICATE.target_name,
        f"{CERTIFICATE.controls['uniform'].relative:.1e}",
        f"{sum(layer.changed for layer in CERTIFICATE.layers)} of",
    ):
        assert piece in words


@pytest.mark.parametrize("layers", [(), ({"layer": 1},), None])
def test_layers_that_are_none_are_refused(layers):
    with pytest.raises(InvalidInputError, match="layers"):
        certificate(layers=layers)
