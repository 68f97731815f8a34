"""Trees of plain containers, with `TensorInfo` leaves: what lies where, and changes of it."""

from collections.abc import Iterator, Mapping

from modtool.pickles.symbols import Call
from modtool.records import TensorInfo

__all__ = ["DROPPED", "at", "beginnings", "entries", "find_key", "joined", "path_of", "put"]
__all__ += ["place_of", "way_to", "with_entries", "without"]


class Missing:
    """The type of `DROPPED`."""

    __slots__ = ()


DROPPED = Missing()


def path_of(tensor: TensorInfo) -> str:
    """Where a tensor lies from the root of its file."""
    return tensor.full_name


def place_of(section: str | None, name: str) -> str:
    """The path of a name in a section; a section that is one tensor has no name in it."""
    return joined(section or "", name) if name else section or ""


def joined(path: str, key: object) -> str:
    """A dotted path, one step deeper."""
    return f"{path}.{key}" if path else str(key)


def beginnings(name: str) -> Iterator[str]:
    """A dotted name, and what it lies in."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def entries(tree: object) -> dict[object, object] | None:
    """The entries of a dict or an OrderedDict."""
    if isinstance(tree, Call) and tree.callee == "collections.OrderedDict":
        return tree.items if tree.items is not None else {}
    return tree if isinstance(tree, dict) else None


def with_entries(tree: object, made: dict[object, object]) -> object:
    """A dict of the same kind with other entries."""
    if isinstance(tree, Call):
        return Call(tree.function, tree.arguments, items=made, state=tree.state)
    return made


def find_key(entries: Mapping[object, object], path: str) -> tuple[object, str] | None:
    """The key that a dotted path begins with, the longest that fits, and the rest of the path."""
    for key in sorted(entries, key=lambda key: -len(str(key))):
        text = str(key)
        if path == text:
            return key, ""
        if path.startswith(f"{text}."):
            return key, path[len(text) + 1 :]
    return None


def item_at(tree: list[object] | tuple[object, ...], path: str) -> tuple[int, str] | None:
    """The index that a dotted path begins with, and the rest of the path."""
    index, _, rest = path.partition(".")
    inside = index.isdecimal() and int(index) < len(tree)
    return (int(index), rest) if inside else None


def with_item(
    tree: list[object] | tuple[object, ...], index: int, item: object
) -> list[object] | tuple[object, ...]:
    """A list or tuple of the same kind with another item."""
    made = [*tree[:index], item, *tree[index + 1 :]]
    return made if isinstance(tree, list) else tuple(made)


def at(tree: object, path: str) -> object:
    """What lies at a dotted path, in dicts, lists and tuples; None where nothing does."""
    found, rest = way_to(tree, path)
    return None if rest else found


def way_to(tree: object, path: str) -> tuple[object, str]:
    """What lies where a dotted path can be followed no further, and the rest of the path."""
    while path and (place := step(tree, path)) is not None:
        tree, path = place
    return tree, path


def step(tree: object, path: str) -> tuple[object, str] | None:
    """What the beginning of a dotted path names in a container, and the rest of the path."""
    if isinstance(tree, list | tuple):
        item = item_at(tree, path)
        return (tree[item[0]], item[1]) if item is not None else None
    found = entries(tree)
    place = find_key(found, path) if found is not None else None
    return (found[place[0]], place[1]) if found is not None and place is not None else None


def without(tree: object, path: str) -> object:
    """The tree without what lies at a dotted path; the tree given is left as it is.

    In a list None takes its place, so that the others keep theirs.
    """
    if isinstance(tree, list | tuple):
        item = item_at(tree, path)
        if item is None:
            return tree
        index, rest = item
        return with_item(tree, index, without(tree[index], rest) if rest else None)
    found = entries(tree)
    place = find_key(found, path) if found is not None else None
    if found is None or place is None:
        return tree
    key, rest = place
    made = dict(found)
    if rest:
        made[key] = without(made[key], rest)
    else:
        del made[key]
    return with_entries(tree, made)


def put(tree: object, path: str, value: object) -> object:
    """The tree with a value at a dotted path; dicts on the way are entered, lists too."""
    if isinstance(tree, list | tuple):
        item = item_at(tree, path)
        if item is None:
            return DROPPED
        index, rest = item
        inner = put(tree[index], rest, value) if rest else value
        return inner if inner is DROPPED else with_item(tree, index, inner)
    found = entries(tree)
    if found is None:
        return DROPPED
    key, rest = find_key(found, path) or (path, "")
    inner = put(found[key], rest, value) if rest else value
    return inner if inner is DROPPED else with_entries(tree, {**found, key: inner})
