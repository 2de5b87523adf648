"""The table of token embeddings of a model, also where it is wrapped (adapters) or offloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from hf_attn_mi.models.model_probe import probe

if TYPE_CHECKING:
    from hf_attn_mi.models.runner import EncoderRunner


@dataclass(frozen=True, eq=False)
class TokenTable:
    """The table that maps token ids to embeddings.

    Attributes:
        module: a table, or a wrapper around one; called with ids it returns their embeddings.
        weight: (ids, hidden) of a table that lies in memory; None if only the module knows the embeddings.
        size: the number of ids.
    """

    module: nn.Module
    weight: Tensor | None
    size: int

    def rows(self, ids: Tensor) -> Tensor:
        """(*ids.shape, hidden) embeddings."""
        embeddings: Tensor = self.module(ids) if self.weight is None else F.embedding(ids, self.weight)
        return embeddings


def find_table(runner: EncoderRunner, arguments: Mapping[str, Any]) -> TokenTable | None:
    """The table in which this model looks the token ids up; None if there is none, or more than one.

    Args:
        runner: runs the model.
        arguments: the keyword arguments of a forward pass.
    """
    table = runner.input_embedding
    if table is not None and not table.weight.is_meta:
        return TokenTable(table, table.weight, table.num_embeddings)
    name = probe(runner, arguments).table
    if name is None:
        return None
    module = runner.model.get_submodule(name)
    if isinstance(module, nn.Embedding) and not module.weight.is_meta:
        return TokenTable(module, module.weight, module.num_embeddings)
    sizes = [part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)]
    return TokenTable(module, None, max(sizes, default=int(getattr(runner.config, "vocab_size", 0) or 0)))
