"""A forward pass that branches on its data: shapes alone cannot tell which way it goes, so
`modtool trace` runs it for real, and says why.

    modtool trace examples/branching.py --input-shape 2,4
"""

import torch
from torch import nn


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positive = nn.Linear(4, 3)
        self.negative = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.positive if x.sum() > 0 else self.negative
        result: torch.Tensor = chosen(x)
        return result
