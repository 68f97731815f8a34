"""A Sequential of Sequentials: layers are named by their positions, `0.1` for the second of the
first. The model stands ready at module level, so no class and no function is needed.

    modtool summary examples/nested_sequential.py
"""

from torch import nn

model = nn.Sequential(
    nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
    nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
    nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
)
