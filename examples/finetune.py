"""Fine-tune a pretrained net: what is frozen comes from the checkpoint, two rates for the rest.

python examples/finetune.py pretrain pretrained.pth
python examples/finetune.py train start.pth tuned.pth
python examples/finetune.py compare start.pth tuned.pth
"""

import sys

import torch
from torch import nn

import modtool


class Net(nn.Module):
    """A small classifier of images: a backbone in two parts, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict(
            {
                "early": nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
                "late": nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU()),
            }
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.backbone["late"](self.backbone["early"](x))
        out: torch.Tensor = self.head(features.mean((2, 3)))
        return out


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 10) -> float:
    """A few steps on data made here; the loss of the last one."""
    inputs, labels = torch.randn(32, 1, 12, 12), torch.randint(10, (32,))
    loss = torch.tensor(0.0)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        torch.autograd.backward(loss)
        optimizer.step()
    return loss.item()


def pretrain(output: str) -> None:
    torch.manual_seed(0)
    model = Net()
    fit(model, torch.optim.AdamW(model.parameters(), lr=0.01))
    torch.save(model.state_dict(), output)


def train(start: str, output: str) -> None:
    torch.manual_seed(1)
    model = Net()
    model.load_state_dict(torch.load(start, weights_only=True)["model_state_dict"])

    # What is frozen, and which norms stay in eval mode, as `modtool freeze` recorded it.
    applied = modtool.apply_freeze(model, start)
    print(f"trains {applied.trainable:,} of {applied.total:,} parameters")

    # A smaller rate for what was pretrained; frozen parameters are in neither group.
    groups = modtool.param_groups(model, {"backbone": {"lr": 1e-4}, "*": {"lr": 1e-2}})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
    sizes = ", ".join(f"{len(group['params'])} at {group['lr']:g}" for group in groups)
    print(f"tensors by learning rate: {sizes}")

    print(f"loss {fit(model, optimizer):.3f}")
    torch.save({"model_state_dict": model.state_dict()}, output)


def compare(start: str, tuned: str) -> None:
    """Every frozen tensor is what it was, bit for bit, and every other parameter is not."""
    before, after = (torch.load(path, weights_only=True) for path in (start, tuned))
    flags = before["requires_grad"]
    for name, old in before["model_state_dict"].items():
        same = bool((bits(old) == bits(after["model_state_dict"][name])).all())
        # Norms that are kept in eval mode do not move their statistics either.
        moves = flags.get(name, not name.startswith(tuple(before["bn_eval"])))
        if same == moves:
            sys.exit(f"{name} {'did not move' if same else 'moved'}")
    print(f"{sum(not flag for flag in flags.values())} frozen tensors did not move by a bit")


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pretrain", output]:
            pretrain(output)
        case ["train", start, output]:
            train(start, output)
        case ["compare", start, tuned]:
            compare(start, tuned)
        case _:
            sys.exit(__doc__)
