"""Temperature schedules: values by hand, and the count of training passes that is saved with the head."""

import pytest
import torch

from hf_attn_mi.heads import AttentionHead, TemperatureSchedule


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [2.0, 2.0, 2.0, 2.0]),
        ("linear", [2.0, 1.25, 0.5, 0.5]),  # 2 + (0.5 - 2) t / 4 at t = 0, 2, 4, 9
        ("exponential", [2.0, 1.0, 0.5, 0.5]),  # 2 (0.25)^(t / 4)
    ],
)
def test_values_by_hand(kind, expected):
    schedule = TemperatureSchedule(kind, start=2.0, end=0.5, steps=4)
    assert [schedule.at(step) for step in (0, 2, 4, 9)] == pytest.approx(expected)


def test_training_passes_are_counted_saved_and_resumed():
    schedule = TemperatureSchedule("linear", start=1.0, end=0.5, steps=10)
    head, states = AttentionHead(4, 2, temperature=schedule), torch.zeros(1, 2, 4)
    for _ in range(4):
        head.train()(states)
    head.eval()(states)  # evaluation does not count
    assert int(head.steps_seen) == 4
    assert head.temperature == pytest.approx(0.8)
    resumed = AttentionHead(4, 2, temperature=schedule.to_dict())
    resumed.load_state_dict(head.state_dict())
    assert resumed.temperature == pytest.approx(0.8)
    head.reset_parameters()
    assert head.temperature == 1.0


def test_the_weights_follow_the_schedule():
    head = AttentionHead(4, 2, temperature={"kind": "linear", "start": 1.0, "end": 0.5, "steps": 1}, dropout=0.0)
    states = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    first, second = head.train()(states).weights, head(states).weights
    squared = first**2 / (first**2).sum(-1, keepdim=True)  # half the temperature squares the odds
    assert torch.allclose(second, squared, atol=1e-6)
