"""Layers in an nn.ModuleDict, chosen by name: of the three activations one is used and two never
run, which `modtool trace` lists.

    modtool trace examples/module_dict.py --input-shape 4,16 --arg activation=gelu
"""

import torch
from torch import nn


class Switch(nn.Module):
    def __init__(self, activation: str = "relu") -> None:
        super().__init__()
        self.activation = activation
        self.linear = nn.Linear(16, 16)
        self.activations = nn.ModuleDict(
            {"relu": nn.ReLU(), "gelu": nn.GELU(), "prelu": nn.PReLU()}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.activations[self.activation](self.linear(x))
        return result
