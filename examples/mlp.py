"""A custom module: two hidden layers between an image's pixels and ten classes.

modtool summary examples/mlp.py
modtool trace examples/mlp.py --input-shape 32,784
"""

import torch
from torch import nn


class MLP(nn.Module):
    def __init__(self, pixels: int = 784, classes: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(pixels, 256)
        self.fc2 = nn.Linear(256, 128)
        self.head = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        scores: torch.Tensor = self.head(x)
        return scores
