"""The attention matrices of one input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.figures import draw
from hf_attn_mi.results.document import Block, Paragraph, Table
from hf_attn_mi.results.plots.matrices import draw_maps
from hf_attn_mi.results.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class AttentionMaps(Record):
    """Attention matrices of one input.

    `maps[layer]` gives the (heads, tokens, tokens) matrices of a layer. `to_pandas` has a row for each weight.

    Attributes:
        kind: "raw", "effective", "effective_affine" or "efficient".
        tokens: the tokens, which are both queries and keys.
        layers: layer index of each matrix.
        names: module name of each matrix.
        heads: the heads that were kept, in order.
        matrices: one (heads, tokens, tokens) tensor for each layer.
        residual: one (heads, tokens) tensor for each layer: ||new row V - output|| / ||output||.
        support: one (heads, tokens) tensor for each layer: keys with a weight that is not zero.
        info: how they were computed, JSON-like.

    Raises:
        InvalidInputError: numbers of layers, heads or tokens that disagree.
    """

    TYPE: ClassVar[str] = "hf_attn_mi.AttentionMaps"
    NOUN: ClassVar[str] = "attention maps"
    FOLDER: ClassVar[str] = "maps"

    kind: str
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    names: tuple[str, ...]
    heads: tuple[int, ...]
    matrices: tuple[Tensor, ...]
    residual: tuple[Tensor, ...]
    support: tuple[Tensor, ...]
    info: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, layer: int) -> Tensor:
        """Return the (heads, tokens, tokens) matrices of the layer with this index.

        Raises:
            InvalidInputError: no matrices of this layer were kept.
        """
        if layer not in self.layers:
            raise InvalidInputError(f"layer {layer!r} does not exist; there are layers {list(self.layers)}")
        return self.matrices[self.layers.index(layer)]

    def plot(
        self,
        path: str | Path | None = None,
        *,
        kind: str | None = None,
        ax: Axes | None = None,
        layer: int | None = None,
        head: int | None = None,
    ) -> Figure:
        """Return a matplotlib figure of one matrix, queries in rows and keys in columns.

        `Results` of maps of the same input, such as its raw, effective and efficient attention, draw them side by side
        on one scale.

        Args:
            path, ax: as in `Record.plot`.
            kind: "matrix", the only one.
            layer: its index in the encoder; None for the first one that was kept.
            head: its number in the layer; None for the first one that was kept.

        Raises:
            BackendUnavailableError: matplotlib is not installed (extra `plots`).
            InvalidInputError: another kind, a layer or head that was not kept, or a path that cannot be written.
        """
        return draw({"matrix": lambda ax: draw_maps([self], layer, head, ax)}, self.NOUN, path, kind, ax)

    def matrix(self, layer: int | None = None, head: int | None = None) -> Tensor:
        """Return the (tokens, tokens) weights of one head; None stands for the first layer or head that was kept.

        Raises:
            InvalidInputError: a layer or head that was not kept.
        """
        if head is not None and head not in self.heads:
            raise InvalidInputError(f"head {head!r} does not exist; there are heads {list(self.heads)}")
        place = 0 if head is None else self.heads.index(head)
        return (self.matrices[0] if layer is None else self[layer])[place]

    def _check(self) -> None:
        heads, tokens = len(self.heads), len(self.tokens)
        for name in ("names", "matrices", "residual", "support"):
            if len(getattr(self, name)) != len(self.layers):
                raise InvalidInputError(f"{name} has {len(getattr(self, name))} entries for {len(self.layers)} layers")
        for name, shape in (
            ("matrices", (heads, tokens, tokens)),
            ("residual", (heads, tokens)),
            ("support", (heads, tokens)),
        ):
            for index, tensor in enumerate(getattr(self, name)):
                if tuple(tensor.shape) != shape:
                    raise InvalidInputError(f"{name}[{index}] must have shape {shape}, got {tuple(tensor.shape)}")

    def _blocks(self) -> list[Block]:
        rows = [
            [str(layer), name, f"{float(support.double().mean()):.3g}", f"{float(residual.max()):.1e}"]
            for layer, name, support, residual in zip(self.layers, self.names, self.support, self.residual)
        ]
        heads = f"heads {', '.join(map(str, self.heads))}"
        opening = f"Attention of kind {self.kind!r} over {len(self.tokens)} tokens, {heads}: {' '.join(self.tokens)}"
        return [Paragraph(opening), Table(("layer", "name", "keys with weight (mean)", "residual (max)"), rows)]

    def _columns(self) -> dict[str, list[Any]]:
        heads, tokens, layers = len(self.heads), len(self.tokens), len(self.layers)
        return {
            "layer": [layer for layer in self.layers for _ in range(heads * tokens**2)],
            "head": [head for head in self.heads for _ in range(tokens**2)] * layers,
            "query": [token for token in range(tokens) for _ in range(tokens)] * (heads * layers),
            "key": list(range(tokens)) * (tokens * heads * layers),
            "weight": [weight for matrix in self.matrices for weight in matrix.flatten().tolist()],
        }

    def _summary(self) -> dict[str, object]:
        return {"kind": self.kind, "tokens": len(self.tokens), "layers": list(self.layers), "heads": list(self.heads)}
