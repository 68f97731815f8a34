"""Old files of weight_norm, which the newer one takes: its hook renames them when they are loaded.

Source: torch 2.13, `torch/nn/utils/parametrizations.py`, `_weight_norm_compat_hook`.
"""

from collections.abc import Iterable, Iterator

from modtool.diffs.sides import Entries
from modtool.plan.tree import joined
from modtool.records import ModuleNode, TensorInfo

__all__ = ["as_parametrized"]

WEIGHT_NORM = "torch.nn.utils.parametrizations._WeightNorm"
INSIDE = "parametrizations"


def as_parametrized(modules: Iterable[ModuleNode], given: Entries) -> dict[str, TensorInfo]:
    """A checkpoint's tensors under the names that the hooks of a model's weight norms give them."""
    new: dict[str, str] = {}
    for group in weight_norms(modules):
        if all(old in given for old in group):
            new |= group
    return {new.get(name, name): tensor for name, tensor in given.items()}


def weight_norms(modules: Iterable[ModuleNode]) -> Iterator[dict[str, str]]:
    """Old name -> new name of the magnitude and the direction of each normed weight."""
    for node in modules:
        if node.class_name == WEIGHT_NORM and node.path.endswith(".0"):
            parametrized = node.path.removesuffix(".0")
            above, _, name = parametrized.rpartition(".")
            owner = above.removesuffix(INSIDE).removesuffix(".")
            yield {
                joined(owner, f"{name}_{old}"): f"{parametrized}.original{index}"
                for index, old in enumerate("gv")
            }
