"""Values of a distributed checkpoint that lie in items of their own, brought into its object."""

from collections.abc import Mapping
from dataclasses import replace

from modtool.errors import ModtoolError
from modtool.formats.dcp import NAME, StoredValue
from modtool.formats.dcp_items import read_item
from modtool.records import Checkpoint

__all__ = ["with_small_values", "with_values"]

# What `summary` reads: a number takes about 1,300 bytes in its item.
MAX_SMALL = 16_384
MAX_READ = 200


def with_values(checkpoint: Checkpoint) -> Checkpoint:
    """A distributed checkpoint with every stored value read; any other as it is.

    A value that cannot be read stays unknown.
    """
    if checkpoint.format != NAME or checkpoint.root is None:
        return checkpoint
    return replace(checkpoint, root=filled(checkpoint.root))


def with_small_values(root: object) -> tuple[object, int]:
    """An object with its first small values read, the outermost first; the rest as it is.

    Returns:
        The object, and how many bytes the items have that were read.
    """
    level, found = [root], list[StoredValue]()
    while level and len(found) < MAX_READ:
        inside = [item for value in level for item in parts(value)]
        small = (item for item in inside if isinstance(item, StoredValue))
        found += [value for value in small if 0 < value.item.length <= MAX_SMALL]
        level = inside
    read = {id(value): filled(value) for value in found[:MAX_READ]}
    return replaced(root, read), sum(value.item.length for value in found[:MAX_READ])


def parts(value: object) -> list[object]:
    """The items of a dict or list; the object of a distributed checkpoint has no others."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def replaced(value: object, read: Mapping[int, object]) -> object:
    """An object with what was read in place of what it stands for."""
    if isinstance(value, dict):
        return {key: replaced(item, read) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, read) for item in value]
    return read.get(id(value), value)


def filled(value: object) -> object:
    """A value with what it refers to."""
    if isinstance(value, dict):
        return with_numbers({key: filled(item) for key, item in value.items()})
    if isinstance(value, list):
        return [filled(item) for item in value]
    if not isinstance(value, StoredValue):
        return value
    try:
        return read_item(value.item).root
    except ModtoolError:
        return value


def with_numbers(found: dict[object, object]) -> dict[object, object]:
    """An optimizer's state by number again, as `load_state_dict` looks for it; torch wrote text.

    Anything else, and a state by name, is left as it is.
    """
    state, groups = found.get("state"), found.get("param_groups")
    if not isinstance(state, dict) or not isinstance(groups, list):
        return found
    lists = [group.get("params") for group in groups if isinstance(group, dict)]
    by_text: dict[object, int] = {
        str(number): number
        for numbers in lists
        if isinstance(numbers, list)
        for number in numbers
        if type(number) is int
    }
    if not all(key in by_text for key in state):
        return found
    return {**found, "state": {by_text[key]: item for key, item in state.items()}}
