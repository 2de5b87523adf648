"""The bias terms of a linearized pass: what its constants contribute to the explained value of each example."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor


class BiasTerms:
    """Shares of constants, kept on their devices as they are found in a backward pass and added up when asked for.

    Nothing is moved or synchronized in between, and the products of all constants are taken in one step.

    Args:
        batch: number of examples.

    Example:
        >>> terms = BiasTerms(2)
        >>> terms.add_product(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1.0, 10.0]))
        >>> terms.add(torch.tensor([100.0, 200.0]))
        >>> terms.total()
        tensor([121., 243.], dtype=torch.float64)
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._shares: list[Tensor] = []
        self._products: dict[torch.device, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def add(self, shares: Tensor) -> None:
        """Add shares whose first dimension is the batch, or batch times heads; others are spread evenly."""
        if shares.dim() == 0 or shares.shape[0] % self.batch:
            shares = (shares.sum(dtype=torch.float64) / self.batch).expand(self.batch)
        elif shares.dim() > 1 or shares.shape[0] != self.batch:
            shares = shares.reshape(self.batch, -1).sum(1, dtype=torch.float64)
        self._shares.append(shares.double())

    def add_product(self, rows: Tensor, constant: Tensor) -> None:
        """Add <row, constant> of each example.

        Args:
            rows: (batch, width).
            constant: (width,).
        """
        self._products[rows.device].append((rows, constant))

    def total(self) -> Tensor:
        """(batch,) float64 on the CPU: the sum of all shares so far."""
        total = torch.zeros(self.batch, dtype=torch.float64)
        for products in self._products.values():
            rows, constants = (torch.cat(parts, -1).double() for parts in zip(*products))
            total += (rows @ constants).cpu()
        by_device = defaultdict(list)
        for shares in self._shares:
            by_device[shares.device].append(shares)
        for parts in by_device.values():
            total += torch.stack(parts).sum(0).cpu()
        return total
