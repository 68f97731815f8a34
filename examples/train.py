"""A few steps of training on data made here, from a checkpoint that `modtool freeze` wrote.

python examples/train.py start.pth ckpt.pth
"""

import sys

import torch
from mlp import MLP
from torch import nn


def main(start: str, output: str, steps: int = 20) -> None:
    torch.manual_seed(0)
    checkpoint = torch.load(start, weights_only=True)
    model = MLP()
    model.load_state_dict(checkpoint["model_state_dict"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(checkpoint["requires_grad"][name])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-3)
    inputs, labels = torch.randn(256, 784), torch.randint(10, (256,))
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        torch.autograd.backward(loss)
        optimizer.step()
    torch.save(
        {
            "epoch": 1,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "loss": loss.item(),
        },
        output,
    )
    print(f"trained {len(trained)} tensors for {steps} steps, loss {loss.item():.3f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
