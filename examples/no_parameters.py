"""A layer without parameters: it centres its input and learns nothing.

modtool count examples/no_parameters.py
modtool trace examples/no_parameters.py --input-shape 4,8
"""

import torch
from torch import nn


class Centre(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(dim=-1, keepdim=True)
