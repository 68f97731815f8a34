"""The nested Sequential again, built from OrderedDicts: every layer has a name, so that patterns
such as `stem.*` or `head.classify.bias` say what they mean.

    modtool trace examples/ordered_sequential.py --input-shape 8,3,32,32
"""

from collections import OrderedDict

from torch import nn


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels_in, channels_out, 3, padding=1),
            norm=nn.BatchNorm2d(channels_out),
            act=nn.ReLU(),
        )
    )


def build_model(classes: int = 10) -> nn.Sequential:
    head = OrderedDict(
        pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classify=nn.Linear(32, classes)
    )
    return nn.Sequential(
        OrderedDict(stem=block(3, 16), body=block(16, 32), head=nn.Sequential(head))
    )
