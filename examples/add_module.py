"""Layers registered with add_module, under names that are made up on the way.

modtool summary examples/add_module.py --arg 'sizes=[784, 300, 100, 10]'
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


class Stack(nn.Module):
    def __init__(self, sizes: Sequence[int] = (20, 15, 10)) -> None:
        super().__init__()
        for number, (size_in, size_out) in enumerate(pairwise(sizes), start=1):
            self.add_module(f"linear{number}", nn.Linear(size_in, size_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            x = torch.tanh(layer(x))
        return x
