"""A model that initialises itself in its constructor, as published code does.

modtool reinit examples/self_init.py --scheme orthogonal --pattern 'type:Linear' --dry-run
"""

import torch
from torch import nn


class SelfInitialised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.head = nn.Linear(8, 2)
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.conv(x)).mean(dim=(2, 3))
        scores: torch.Tensor = self.head(features)
        return scores


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.constant_(module.weight, 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
