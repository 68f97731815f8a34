"""`_metadata`, which `state_dict()` attaches: module path -> version, for `load_state_dict`.

A full model does not record the versions of its classes; those of torch's own are known. A class of
anyone else's has no entry here: what it would say stands in its code alone.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType

from modtool.pickles.modules import modules_in
from modtool.pickles.plain import mapping_of
from modtool.pickles.symbols import Call, Global
from modtool.plan.tree import DROPPED, at, put

__all__ = ["around", "version_of", "versions_of", "with_versions", "without_versions"]

METADATA = "_metadata"
TORCH = "torch."
# Beginnings of the names of classes with another version than 1 (torch 2.13, `_version`).
VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "torch.nn.modules.batchnorm.": 2,
        "torch.nn.modules.instancenorm.": 2,
        "torch.ao.nn.intrinsic.qat.modules.conv_fused.ConvBn": 2,
        "torch.ao.nn.intrinsic.quantized.dynamic.modules.linear_relu.": 4,
        "torch.ao.nn.intrinsic.quantized.modules.bn_relu.": 2,
        "torch.ao.nn.intrinsic.quantized.modules.linear_relu.": 3,
        "torch.ao.nn.quantized.dynamic.modules.linear.": 4,
        **{f"torch.ao.nn.quantized.dynamic.modules.rnn.{kind}": 2 for kind in ("GRU", "LSTM")},
        "torch.ao.nn.quantized.modules.batchnorm.": 2,
        "torch.ao.nn.quantized.modules.linear.": 3,
        "torch.ao.nn.quantized.modules.normalization.InstanceNorm": 2,
        **{
            f"torch.ao.quantization.observer.{kind}Observer": 3
            for kind in (
                "Histogram",
                "MinMax",
                "MovingAverageMinMax",
                "MovingAveragePerChannelMinMax",
                "PerChannelMinMax",
            )
        },
    }
)
# Where some of them lay before torch 1.13.
MOVED: Mapping[str, str] = MappingProxyType(
    {f"torch.{name}.": f"torch.ao.{name}." for name in ("nn.quantized", "nn.intrinsic")}
    | {"torch.quantization.": "torch.ao.quantization."}
)
# Exceptions from these beginnings.
CELLS = ("GRUCell", "LSTMCell")


def versions_of(module: object) -> dict[object, object]:
    """The state that an OrderedDict of a module's tensors gets from `state_dict()`."""
    items: dict[object, object] = {
        path: {"version": version_of(parts.class_name)}
        for path, _, parts in modules_in(module)
        if parts.class_name.startswith(TORCH)
    }
    return {METADATA: Call(Global("collections", "OrderedDict"), (), items=items)}


def version_of(class_name: str) -> int:
    """The version of one of torch's own classes."""
    if class_name.endswith(CELLS):
        return 1
    for old, new in MOVED.items():
        if class_name.startswith(old):
            class_name = new + class_name.removeprefix(old)
    return next((VERSIONS[start] for start in VERSIONS if class_name.startswith(start)), 1)


# -- edits -------------------------------------------------------------------------------------


def with_versions(tree: object, section: str | None, names: dict[str, str]) -> object:
    """The tree with the paths in a section's `_metadata` changed as the names are."""
    paths = module_paths(names)

    def moved(versions: Mapping[object, object]) -> dict[object, object]:
        found: dict[object, object] = {}
        for path, version in versions.items():
            found.setdefault(paths.get(str(path), path), version)
        return found

    return changed(tree, section, moved)


def without_versions(tree: object, section: str | None, lost: Collection[str]) -> object:
    """The tree without the entries of modules whose tensors have all been left out."""

    def kept(versions: Mapping[object, object]) -> dict[object, object]:
        return {path: version for path, version in versions.items() if path not in lost}

    return changed(tree, section, kept)


def around(names: Iterable[str]) -> Iterator[str]:
    """The paths of all modules around some tensors."""
    for name in names:
        while name:
            name = name.rpartition(".")[0]
            yield name


def changed(
    tree: object,
    section: str | None,
    change: Callable[[Mapping[object, object]], dict[object, object]],
) -> object:
    """The tree with a section's `_metadata` changed, where it has any."""
    part = at(tree, section or "")
    if not isinstance(part, Call) or not isinstance(part.state, dict):
        return tree
    versions = mapping_of(part.state.get(METADATA))
    if versions is None:
        return tree
    state = {**part.state, METADATA: change(versions)}
    made = Call(part.function, part.arguments, items=part.items, state=state)
    if not section:
        return made
    found = put(tree, section, made)
    return tree if found is DROPPED else found


def module_paths(names: dict[str, str]) -> dict[str, str]:
    """Old path -> new path of every module around a renamed tensor.

    A module keeps its place above what lies in it: as long as two names end alike, what stands
    before is the same module.
    """
    paths: dict[str, str] = {}
    for old, new in names.items():
        while old and new and old.rpartition(".")[2] == new.rpartition(".")[2]:
            old, new = old.rpartition(".")[0], new.rpartition(".")[0]
            if paths.setdefault(old, new) != new:
                break
    return paths
