"""The information of each token of one input about the output, by the probes of a profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hf_attn_mi.capture import LayerStates
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels import probe_information
from hf_attn_mi.mi import Probe
from hf_attn_mi.models.encoded_input import EncodedInput, real_tokens
from hf_attn_mi.models.inspect_layers import class_logits
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.results.information_profile import InformationProfile

SCORED_BY = "position 0 by the probe of site 'first', every other token by that of site 'tokens'"


def read_profile(profile: object, runner: EncoderRunner) -> InformationProfile | None:
    """The profile, if it was fitted for this model.

    Raises:
        InvalidInputError: not an `InformationProfile`, or one of another model; the message names both fingerprints.
    """
    if profile is None:
        return None
    if not isinstance(profile, InformationProfile):
        raise InvalidInputError(
            "profile must be an InformationProfile, as fit_information or InformationProfile.load return it; not "
            f"{type(profile).__name__}."
        )
    fingerprint = runner.fingerprint()
    if dict(profile.fingerprint) != fingerprint:
        fitted = {name: str(value)[:12] for name, value in profile.fingerprint.items()}
        current = {name: value[:12] for name, value in fingerprint.items()}
        raise InvalidInputError(
            f"profile was fitted for {profile.info.get('model')} (fingerprint {fitted}, dtype "
            f"{profile.info.get('dtype')}), this model is {runner.name} (fingerprint {current}, dtype "
            f"{runner.provenance()['dtype']}): fit one for this model with fit_information, or load the model that it "
            "was fitted for."
        )
    return profile


class TokenInformation:
    """Consumer of hidden states: keeps those of the profile's layers until the logits are there.

    Args:
        profile: a profile that was fitted for the model.
        runner: runs the model.
        inputs: the inputs of the batch.

    Raises:
        InvalidInputError: the inputs are not sequences of tokens.
    """

    def __init__(self, profile: InformationProfile, runner: EncoderRunner, inputs: Sequence[EncodedInput]) -> None:
        if inputs[0].length is None:
            raise InvalidInputError(
                f"profile is for sequences of tokens; inputs has {', '.join(inputs[0].tensors)}. Pass profile=None."
            )
        self.profile, self.runner, self.inputs = profile, runner, inputs
        self.real = real_tokens(runner.collate(inputs))
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
                f"profile has layers {list(profile.layers)} of {self.stack!r}; on this input the model has "
                f"{sorted(set(self.states) - set(wrong))} with one state for each token."
            )
        probabilities = class_logits(self.runner, outputs, len(self.inputs)).detach().double().softmax(1)
        layers = [self._layer(index, probabilities) for index in profile.layers]
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
            for i in range(len(self.inputs))
        ]

    def _layer(self, index: int, outputs: Tensor) -> list[dict[str, Any]]:
        """Information by the probes of one layer for each input; `outputs` is (batch, classes), its probabilities."""
        profile, states = self.profile, self.states[index]
        kl, gain = self._scores(profile.probe, index, states, outputs)
        halves = [self._scores(half, index, states, outputs)[0] for half in profile.halves]
        records = []
        for i, one in enumerate(self.inputs):
            n = one.token_count
            records.append(
                {
                    "layer": index,
                    "stack": self.stack,
                    "kl": kl[i, :n].tolist(),
                    "v_information": gain[i, :n].tolist(),
                    "split_half": [half[i, :n].tolist() for half in halves],
                    "mi": self._of_layer(index),
                }
            )
        return records

    def _scores(self, probe: Probe, index: int, states: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, tokens) KL( q(Y|h) || q(Y) ) and E_{y ~ outputs}[log q(y|h) - log q(y)]; zero for masked tokens."""
        real = self.real.to(states.device)
        states = states.masked_fill(~real[..., None], 0)  # whatever padding holds, it is not scored

        def scored(name: str, some: Tensor) -> tuple[Tensor, Tensor]:
            place = self.profile.find(index, name)
            directions, offsets = probe.directions[place].to(some.device), probe.offsets[place].to(some.device)
            kl, gain = probe_information(
                some, directions, offsets, probe.prior.to(some.device), outputs.to(some.device)
            )
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
                "lower_bound": _known(information.lower_bound[place]),
                "upper_bound": _known(information.upper_bound[place]),
                "p_value": float(information.p_value[place]),
                "family_p_value": float(information.family_p_value[place]),
                "n": site.n,
            }
            for place, site in enumerate(self.profile.sites)
            if site.layer == index
        }


def _known(bound: Tensor) -> float | None:
    """A bound as a number; None where there is none (NaN for vector outputs)."""
    return float(bound) if bool(bound.isfinite()) else None
