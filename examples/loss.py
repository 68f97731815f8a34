"""A loss module with two inputs: give each a shape, in order or by name.

modtool trace examples/loss.py --input-shape 8,10 --input-shape target=8:int64 --backward
"""

import torch
from torch import nn
from torch.nn import functional


class SmoothedLoss(nn.Module):
    def __init__(self, classes: int = 10, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.class_weights = nn.Parameter(torch.ones(classes))

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        log_probabilities = functional.log_softmax(logits, dim=-1) * self.class_weights
        hit = functional.nll_loss(log_probabilities, target)
        return (1 - self.smoothing) * hit - self.smoothing * log_probabilities.mean()
