"""What each token of one input tells about the output, by the probes of a profile."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hf_attn_mi.capture import LayerStates
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels import probe_information
from hf_attn_mi.mi.probe import Probe
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.fingerprint import fingerprint_of
from hf_attn_mi.models.inspect_layers import class_logits
from hf_attn_mi.models.loading import name_of
from hf_attn_mi.results.information_profile import InformationProfile

SCORED_BY = "position 0 by the probe of site 'first', every other token by that of site 'tokens'"


def read_background(profile: Any, model: nn.Module) -> InformationProfile | None:
    """The profile, if it was fitted for this model.

    Raises:
        InvalidInputError: no `InformationProfile`, or one of another model: names both fingerprints.
    """
    if profile is None:
        return None
    if not isinstance(profile, InformationProfile):
        raise InvalidInputError(
            f"background must be a InformationProfile, as fit_information or InformationProfile.load return it; not "
            f"{type(profile).__name__}."
        )
    own = fingerprint_of(model)
    if dict(profile.fingerprint) != own:
        theirs = {name: str(value)[:12] for name, value in profile.fingerprint.items()}
        mine = {name: value[:12] for name, value in own.items()}
        raise InvalidInputError(
            f"background was fitted for {profile.info.get('model')} (fingerprint {theirs}, dtype "
            f"{profile.info.get('dtype')}), this model is {name_of(model)} (fingerprint {mine}, dtype "
            f"{str(next((p.dtype for p in model.parameters()), None)).removeprefix('torch.')}): fit one for this model "
            "with fit_information, or load the model that it was fitted for."
        )
    return profile


class TokenInformation:
    """Consumer of hidden states: keeps those of the profile's layers until the logits are there.

    Args:
        profile: fitted for `model`.
        model: what runs.
        examples: the inputs of the batch.
        real: (batch, tokens) bool, True for tokens that are neither padding nor masked.

    Raises:
        InvalidInputError: the inputs are no sequences of tokens.
    """

    def __init__(
        self, profile: InformationProfile, model: nn.Module, examples: list[EncodedInput], real: Tensor
    ) -> None:
        self.profile, self.model, self.examples, self.real = profile, model, examples, real
        self.stack = profile.sites[0].stack
        self.states: dict[int, Tensor] = {}

    def __call__(self, record: LayerStates) -> None:
        """Keep the states of one layer."""
        if record.stack == self.stack and record.index in self.profile.layers:
            self.states[record.index] = record.states.detach()

    def results(self, outputs: Any) -> list[dict[str, Any]]:
        """One dictionary for each input, as `Explanation.information` holds it.

        Raises:
            InvalidInputError: a layer of the profile was not seen, or the model gives no class probabilities.
        """
        profile = self.profile
        missing = sorted(set(profile.layers) - set(self.states))
        wrong = [i for i, states in self.states.items() if states.shape[:2] != self.real.shape]
        if missing or wrong:
            raise InvalidInputError(
                f"background has layers {list(profile.layers)} of {self.stack!r}; on this input the model has "
                f"{sorted(set(self.states) - set(wrong))} with one state a token."
            )
        own = class_logits(self.model, outputs, len(self.examples)).detach().double().softmax(1)
        layers = [self._layer(index, own) for index in profile.layers]
        check = profile.ceiling_check()
        return [
            {
                "unit": "nats",
                "ceiling": profile.ceiling,
                "n": profile.n,
                "labels": profile.labels,
                "layers": [layer[i] for layer in layers],
                "ceiling_check": check,
                "probe": SCORED_BY,
            }
            for i in range(len(self.examples))
        ]

    def _layer(self, index: int, own: Tensor) -> list[dict[str, Any]]:
        """What the probes of one layer say, for each input; `own` is (batch, classes), the model's output."""
        profile, states = self.profile, self.states[index]
        kl, gain = self._scores(profile.probe, index, states, own)
        halves = [self._scores(half, index, states, own)[0] for half in profile.halves]
        found = []
        for i, example in enumerate(self.examples):
            n = int(example.length or 0)
            found.append(
                {
                    "layer": index,
                    "stack": self.stack,
                    "kl": kl[i, :n].tolist(),
                    "v_information": gain[i, :n].tolist(),
                    "split_half": [half[i, :n].tolist() for half in halves],
                    "mi": self._of_layer(index),
                }
            )
        return found

    def _scores(self, probe: Probe, index: int, states: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, tokens) KL( q(Y|h) || q(Y) ) and E_{y ~ own}[log q(y|h) - log q(y)]; zero for masked tokens."""
        real = self.real.to(states.device)
        states = states.masked_fill(~real[..., None], 0)  # whatever padding holds, it is not scored

        def scored(name: str, some: Tensor) -> tuple[Tensor, Tensor]:
            place = self.profile.find(index, name)
            directions, offsets = probe.directions[place].to(some.device), probe.offsets[place].to(some.device)
            kl, gain = probe_information(some, directions, offsets, probe.prior.to(some.device), own.to(some.device))
            assert gain is not None
            return kl, gain

        kept = [values.double() for values in scored("tokens", states)]
        for values, first in zip(kept, scored("first", states[:, :1])):
            values[:, 0] = first[:, 0]
        return (kept[0] * real).cpu(), (kept[1] * real).cpu()

    def _of_layer(self, index: int) -> dict[str, Any]:
        information = self.profile.information
        return {
            site.name: {
                "nats": float(information.nats[place]),
                "interval": information.interval[place].tolist(),
                "p_value": float(information.p_value[place]),
                "family_p_value": float(information.family_p_value[place]),
                "n": site.n,
            }
            for place, site in enumerate(self.profile.sites)
            if site.layer == index
        }
