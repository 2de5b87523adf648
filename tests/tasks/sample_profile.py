"""A profile made by hand, for what prints and draws one."""

import torch

from hf_attn_mi.mi import MutualInformation, Probe
from hf_attn_mi.results.information_profile import InformationProfile, Site

CEILING = 0.625
LAYERS = {"first": (0, 3, 6), "tokens": (0, 3, 6), "attention rank 1": (3, 6)}  # no attention made the embeddings


def made(layers=LAYERS):
    """A profile of one model of this many sites; no number twice."""
    sites = tuple(Site(i, "encoder", name, "words", 400) for name, places in layers.items() for i in places)
    count = len(sites)
    nats = torch.linspace(-0.01, 0.6, count, dtype=torch.float64)
    width = torch.linspace(0.02, 0.03, count, dtype=torch.float64)
    ones = torch.ones(count, dtype=torch.float64)
    information = MutualInformation(
        lower_bound=(nats - 3 * width).clamp_min(0),
        upper_bound=ones * (CEILING + 0.01),
        lower_bound_normal=(nats - 2.5 * width).clamp_min(0),
        nats=nats,
        interval=torch.stack([nats - width, nats + 2 * width], -1),
        p_value=ones * 0.005,
        family_p_value=ones * 0.01,
        null_mean=ones * 0,
        ceiling=CEILING,
        n=400,
        estimator="auto",
        parts=("probe",) * count,
        predictors=("linear",) * count,
        effort="fast",
        warnings=(),
    )
    probe = Probe(torch.zeros(count, 2, 5), torch.zeros(count, 2), torch.tensor([0.5, 0.5]))
    info = {"model": "some-model", "reads": "first", "last_layer": 6}
    return InformationProfile(
        sites, information, probe, (probe, probe), ("no", "yes"), {"config": "a", "weights": "b"}, info
    )
