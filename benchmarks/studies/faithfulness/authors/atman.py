"""AtMan by its authors' `Explainer`, attention and `get_delta_cross_entropies`, inside transformers' BERT.

Repository: Aleph-Alpha/AtMan, 847f090, folder atman-magma. Its models are MAGMA and GPT-J, causal and made to continue
a text; none of them classifies. Everything that is AtMan runs as it is: `Explainer` makes one configuration for each
token and collects logits, `GPTNeoForCausalLM.get_modified_causal_attention_mask` makes the factors,
`GPTNeoAttentionMixin._attn` is the whole attention with `manipulate_attention_scores` in it, and
`get_delta_cross_entropies` makes scores of the logits. The adapter supplies what these ask for: a "model" whose input
is the embeddings of the text, whose one continuation token is the class, and whose causal mask hides nothing.

    pip install torch transformers==4.30.2 einops

Patched to be importable: `transformers.file_utils.add_code_sample_docstrings`, which is given an argument of an older
release, does nothing. The package's `__init__` imports nothing, so that MAGMA is not needed.

"AtMan" has `conceptual_suppression_threshold=None`, as their `DocumentQAExplainer` for texts: no other token is
suppressed because it resembles the token. "AtMan, similar tokens too" has the default of `Explainer`, .6. Signs are
turned: theirs is the loss before less the loss after.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import exchange
import torch
import transformers

sys.path[:0] = [str(Path(folder) / "atman-magma") for folder in sys.path]
transformers.file_utils.add_code_sample_docstrings = lambda *_, **__: lambda function: function

from atman_magma.explainer import Explainer  # noqa: E402
from atman_magma.gpt_neo.modeling_gpt_neo import GPTNeoAttentionMixin, GPTNeoForCausalLM  # noqa: E402
from atman_magma.logit_parsing import get_delta_cross_entropies  # noqa: E402


class Classifier(torch.nn.Module):
    """The `model` and the `model.lm` of their `Explainer`; the logits of the classes stand at every position."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert
        self.attention = GPTNeoAttentionMixin()
        self.suppression_factors: Any = None
        self.suppression_token_indices: Any = None
        for layer in bert.bert.encoder.layer:
            module = layer.attention.self
            module.forward = lambda states, *_, module=module, **__: (self.attend(module, states),)

    @property
    def lm(self) -> Classifier:
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def preprocess_inputs(self, parts: Any, embed: bool = True) -> Any:
        """Embeddings of token ids, (1, n, D), or the ids as their prompt and target have them."""
        ids = torch.tensor([parts[0]])
        return self.bert.get_input_embeddings()(ids) if embed else [ids]

    def attend(self, module: Any, states: torch.Tensor) -> torch.Tensor:
        """The outputs of the heads by their attention; `states` is (b, n, D)."""
        heads, width, tokens = module.num_attention_heads, module.attention_head_size, states.shape[1]
        parts = [
            self.attention._split_heads(projection(states), heads, width, False)
            for projection in (module.query, module.key, module.value)
        ]
        all_keys = torch.ones(1, 1, tokens, tokens, dtype=torch.bool)
        factors = None
        if self.suppression_factors is not None:
            block = SimpleNamespace(attn=SimpleNamespace(attention=SimpleNamespace(bias=all_keys)))
            holder = SimpleNamespace(transformer=SimpleNamespace(h=[block]))
            factors = GPTNeoForCausalLM.get_modified_causal_attention_mask(
                holder, tokens, self.suppression_token_indices, self.suppression_factors
            )
        mixed, _ = self.attention._attn(
            *parts,
            causal_mask=all_keys,
            masked_bias=torch.tensor(-1e9),
            attn_dropout=torch.nn.Identity(),
            scale_attn=width**0.5,
            modified_causal_attention_mask=factors,
        )
        return self.attention._merge_heads(mixed, heads, width)

    def forward(self, inputs_embeds: torch.Tensor) -> Any:
        logits = self.bert(inputs_embeds=inputs_embeds).logits
        return SimpleNamespace(logits=logits[:, None].expand(-1, inputs_embeds.shape[1], -1))


def make(name: str) -> dict[str, exchange.TokenExplainer]:
    """The explainers."""
    kind = transformers.AutoModelForSequenceClassification
    model = Classifier(kind.from_pretrained(name, torch_dtype=torch.float32).eval())

    def explainer(threshold: float | None) -> exchange.TokenExplainer:
        def explain(ids: Sequence[int], target: int) -> list[float]:
            made = Explainer(model, torch.device("cpu"), None, conceptual_suppression_threshold=threshold)
            output = made.collect_logits_by_manipulating_attention([list(ids)], [[target]], max_batch_size=32)
            parts = get_delta_cross_entropies(output).data[0]["explanation"]
            return [-part["value"] for part in parts]

        return explain

    @torch.no_grad()
    def logits(ids: Sequence[int], target: int) -> list[float]:
        return model(model.preprocess_inputs([list(ids)])).logits[0, 0].tolist()

    return {"logits": logits, "AtMan": explainer(None), "AtMan, similar tokens too": explainer(0.6)}


if __name__ == "__main__":
    exchange.serve(make, ("einops",), "Explainer, suppression_factor=0.1, get_delta_cross_entropies", reads_ids=True)
