"""Layers in an nn.ModuleList: PyTorch registers each of them under its position, and the forward
pass decides the order. The constructor's arguments come from the command line.

    modtool summary examples/module_list.py --arg width=64 --arg depth=4
"""

import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return x
