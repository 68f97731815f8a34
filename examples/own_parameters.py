"""A layer with nn.Parameters of its own, and a buffer that is saved with them.

modtool summary examples/own_parameters.py
modtool trace examples/own_parameters.py --input-shape 4,6
"""

import torch
from torch import nn


class ScaledLinear(nn.Module):
    scale: torch.Tensor

    def __init__(self, size_in: int = 6, size_out: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size_in, size_out))
        self.bias = nn.Parameter(torch.zeros(size_out))
        self.register_buffer("scale", torch.tensor(size_in**-0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * (x @ self.weight) + self.bias
