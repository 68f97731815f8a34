"""A mistake: layers kept in a plain Python list. PyTorch does not see them, so they are not
trained, not saved and not moved to a device. `modtool summary` says so.

    modtool summary examples/unregistered.py
"""

import torch
from torch import nn


class Forgetful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(8, 8), nn.Linear(8, 8)]
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        scores: torch.Tensor = self.head(x)
        return scores
