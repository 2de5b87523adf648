"""The three outcomes follow from the numbers, and text, color and HTML say them in words."""

from dataclasses import replace

import pytest

from tests.results.result_samples import LAYER, NO_CHANGE, certificate, token_set

UNCHANGED = replace(LAYER, changed=0)
CERTIFICATES = {
    "holds": certificate(),
    "does not hold": certificate(change=replace(NO_CHANGE, kept=False)),
    "nothing to certify": certificate(layers=(UNCHANGED, UNCHANGED)),
}
REASON = "The special tokens alone give positive the probability 0.9500."
TOKEN_SETS = {
    "holds": token_set(),
    "does not hold": token_set(minimal=False, reason="The budget of 2 forwards ran out."),
    "nothing to certify": token_set(defined=False, indices=(), spans=(), words=(), singles=(), reason=REASON),
}
CASES = [*CERTIFICATES.items(), *TOKEN_SETS.items()]
COLORS = {"holds": "32", "does not hold": "31", "nothing to certify": "33"}  # green, red, yellow
TONES = {"holds": "good", "does not hold": "bad", "nothing to certify": "neutral"}


@pytest.mark.parametrize(("outcome", "record"), CASES)
def test_the_outcome_is_read_off_the_numbers(outcome, record):
    assert record.outcome == outcome
    assert record.holds is (outcome == "holds")
    data = record.to_dict()
    assert (data["outcome"], data["holds"]) == (outcome, outcome == "holds")
    assert type(record).from_dict({**data, "outcome": "holds", "holds": True}).outcome == outcome


@pytest.mark.parametrize(("outcome", "record"), CASES)
def test_text_color_and_html_say_it_in_words(outcome, record):
    words = {"holds": "holds", "does not hold": "not hold", "nothing to certify": "nothing to certify"}[outcome]
    first = str(record).splitlines()[0]
    assert words in first.lower()
    assert record.to_text(color="256").startswith(f"\x1b[1;{COLORS[outcome]}m")
    assert f'<p class="{TONES[outcome]}">' in record.to_html()
    assert outcome in repr(record)


def test_a_certificate_of_unchanged_rows_says_why():
    record = CERTIFICATES["nothing to certify"]
    assert "Nothing to certify: no row could change, n <= rank in every layer." in str(record)
    assert record.reasons == ()
    assert certificate(layers=(UNCHANGED, LAYER)).outcome == "holds"  # one changed row is enough


def test_a_failure_is_not_hidden_by_unchanged_rows():
    broken = certificate(layers=(UNCHANGED,), change=replace(NO_CHANGE, kept=False))
    assert broken.outcome == "does not hold"


def test_a_token_set_says_why_there_is_none():
    assert str(TOKEN_SETS["nothing to certify"]) == f"Nothing to certify: no set of tokens for 'positive'. {REASON}"
    assert "The budget of 2 forwards ran out." in str(TOKEN_SETS["does not hold"])
    assert "locally minimal" in str(TOKEN_SETS["holds"])
