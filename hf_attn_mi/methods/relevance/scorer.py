"""The relevance family as token-scoring methods: "relevance", "attnlrp" and "attnlrp_iterative"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.base import TokenScores
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.methods.relevance.gradient_times_input import FIRST_LAYER, Relevance, relevance, relevances
from hf_attn_mi.methods.relevance.iterative import iterative_scores
from hf_attn_mi.methods.relevance.linearized_forward import SoftmaxRule
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target

DECODER = "decoder_input_ids"


@dataclass(frozen=True)
class RelevanceScorer:
    """Gradient x input of the linearized forward pass, once or iteratively.

    Attributes:
        name, reference, cost: see `TokenScorer`.
        softmax_rule: "detach" or "taylor"; see `relevance`.
        iterative: score again without the highest tokens of the stages before; see `iterative_scores`.
    """

    name: str
    reference: str
    cost: str
    softmax_rule: SoftmaxRule = "detach"
    iterative: bool = False
    class_linked: bool = True
    needs_gradients: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def additive(self) -> bool:
        """Scores of different stages do not add up."""
        return not self.iterative

    def score(self, runner: EncoderRunner, batch: ScoringBatch, target: Target) -> TokenScores:
        """The scores of every input; see `TokenScorer.score`.

        Raises:
            InvalidInputError: iterative, and there are no tokens to mask.
            UnsupportedModelError: no gradient reaches the embeddings, or the scores cannot be assigned to tokens.
        """
        return self.score_targets(runner, batch, [target])[0]

    def score_targets(self, runner: EncoderRunner, batch: ScoringBatch, targets: Sequence[Target]) -> list[TokenScores]:
        """The scores of each target, from one forward pass; see `score`."""
        if self.iterative:
            self._refuse_unmaskable(runner, batch)
        results = relevances(runner, batch.arguments, targets, run=batch.run, softmax_rule=self.softmax_rule)
        longest = max(one.token_count for one in batch.inputs)
        if batch.is_text and results[0].scores.shape[1] != longest:
            raise UnsupportedModelError(
                f"{runner.class_name}: its first layer has {results[0].scores.shape[1]} positions for {longest} "
                "tokens, so the scores cannot be given to tokens."
            )
        if self.iterative:
            pairs = zip(targets, results)
            return [self._iterate(runner, batch, target.settled(), one.scores, one.space) for target, one in pairs]
        return [
            TokenScores(
                one.scores,
                one.gap,
                one.space,
                notes=_notes(one, is_text=batch.is_text and "input_ids" in batch.arguments),
                target_gaps=one.target_gap,
                other_inputs=one.others,
                unfollowed=one.unfollowed,
                values=one.value,
                bias=one.bias,
            )
            for one in results
        ]

    def _iterate(
        self, runner: EncoderRunner, batch: ScoringBatch, target: Target, first: Tensor, space: str
    ) -> TokenScores:
        mask = batch.arguments["attention_mask"]
        removable = batch.real.cpu() & ~batch.special.cpu()

        def score_again(kept: Tensor) -> Tensor:
            arguments = {**batch.arguments, "attention_mask": mask.masked_fill(~kept.to(mask.device), 0)}
            return relevance(runner, arguments, target, softmax_rule=self.softmax_rule).scores

        notes: tuple[str, ...] = ()
        if not batch.special_known:
            notes = ("Without a tokenizer it is not known which tokens are special: all of them were masked.",)
        return TokenScores(iterative_scores(first, removable, score_again), space=space, notes=notes)

    def _refuse_unmaskable(self, runner: EncoderRunner, batch: ScoringBatch) -> None:
        batch.require_text(self.name)
        if not runner.takes("attention_mask"):
            raise UnsupportedModelError(
                f"{runner.class_name}.forward has no attention_mask, so none of its tokens can be masked. Use "
                "method='relevance'."
            )
        mask = batch.inputs[0].tensors.get("attention_mask")
        if mask is not None and mask.dim() != 1:
            raise InvalidInputError(
                f"inputs['attention_mask'] must be (batch, tokens) for method {self.name!r}, not "
                f"{mask.dim() + 1}-dimensional: further tokens are masked in it."
            )


def _notes(result: Relevance, *, is_text: bool) -> tuple[str, ...]:
    notes = tuple(
        f"The model also looks up the tokens of {key!r}: what they contribute to the value is a bias term, given in "
        "info['other_inputs']; to score them, pass them as the input."
        for key in result.others
        if key != DECODER  # the decoder's tokens have their own scores
    )
    if is_text and result.space == FIRST_LAYER:
        notes += (
            "No table of the model looks the token ids up (torch.nn.Embedding, or torch.nn.functional.embedding): the "
            "scores are those of the states that enter the first layer, which hold positions and types of tokens, too.",
        )
    if result.factors:
        notes += (
            f"The target is not linear in the model's outputs ({', '.join(result.factors)}): its factor f(x) / x is "
            "held at this input, so the scores are those of the outputs times this factor (a product is shared "
            "equally between its factors, a quotient holds its divisor). They add up to the value, but do not follow "
            "its slope. Return a logit or a difference of logits to explain the outputs themselves.",
        )
    if result.pieces:
        notes += (
            f"The target is not linear in the model's outputs ({', '.join(result.pieces)}): the outputs that it "
            "selects at this input, and the signs that it takes, are held. The scores do not say why these outputs "
            "were selected; at another input it may be others. Return a logit or a difference of logits to explain the "
            "outputs themselves.",
        )
    if not result.tangents:
        return notes
    names = ", ".join(result.tangents)
    return (
        *notes,
        f"The target is not linear in the model's outputs ({names}): its tangent at this input is explained (for a "
        "softmax the margin of its logits, times a slope), and the rest of the value is in the bias terms. Return a "
        "logit or a difference of logits to explain the value itself.",
    )


SCORERS = (
    RelevanceScorer("relevance", "Ali et al., arXiv 2202.07304; our operationalization", "1 forward + 1 backward"),
    RelevanceScorer(
        "attnlrp",
        "Achtibat et al., arXiv 2402.05602; our operationalization: relevance through queries and keys too",
        "1 forward + 1 backward",
        softmax_rule="taylor",
    ),
    RelevanceScorer(
        "attnlrp_iterative",
        "attnlrp in stages, each without the top tokens of those before; our operationalization",
        "up to 4 forwards + 4 backwards",
        softmax_rule="taylor",
        iterative=True,
    ),
)
