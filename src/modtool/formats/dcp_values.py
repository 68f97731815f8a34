"""Values of a distributed checkpoint that lie in items of their own, brought into its object."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from modtool.errors import CorruptFileError, ModtoolError
from modtool.formats.dcp import METADATA, NAME, StoredValue, with_object
from modtool.formats.dcp_items import read_item
from modtool.formats.torch_zip import MAX_PICKLE
from modtool.pickles.reader import Pickle
from modtool.pickles.torch_objects import storage_id
from modtool.records import Checkpoint, Storage

__all__ = ["with_small_values", "with_values"]

# What `summary` reads: the pickle of a value, beside which its item may have tensors of any size.
MAX_SMALL = 16_384
MAX_READ = 200


def with_values(checkpoint: Checkpoint) -> Checkpoint:
    """A distributed checkpoint with every stored value read; any other as it is.

    A value that cannot be read stays unknown. Tensors inside a value (torch saves a tuple as one)
    are tensors of the checkpoint.
    """
    if checkpoint.format != NAME or checkpoint.root is None:
        return checkpoint
    opened = Opened()
    return opened.checkpoint(checkpoint, opened.filled(checkpoint.root))


def with_small_values(checkpoint: Checkpoint) -> Checkpoint:
    """A distributed checkpoint with its first small values read, the outermost first."""
    level, found = [checkpoint.root], list[StoredValue]()
    while level and len(found) < MAX_READ:
        inside = [item for value in level for item in parts(value)]
        values = (item for item in inside if isinstance(item, StoredValue))
        found += [value for value in values if value.item.length]
        level = inside
    opened = Opened(MAX_SMALL)
    read = {id(value): opened.filled(value) for value in found[:MAX_READ]}
    return opened.checkpoint(checkpoint, replaced(checkpoint.root, read))


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


@dataclass(slots=True)
class Opened:
    """The values that were opened, each a file of `torch.save` with storages of its own.

    `most` is how many bytes the pickle of each may have.
    """

    most: int = MAX_PICKLE
    storages: dict[str, Storage] = field(default_factory=dict)
    count: int = 0
    size: int = 0

    def checkpoint(self, checkpoint: Checkpoint, root: object) -> Checkpoint:
        """The checkpoint with an object that holds what was opened."""
        metadata = checkpoint.pickles[METADATA]
        assert isinstance(metadata, Pickle)
        return with_object(checkpoint, root, self.storages, metadata.end + self.size)

    def filled(self, value: object) -> object:
        """A value with what it refers to."""
        if isinstance(value, dict):
            return with_numbers({key: self.filled(item) for key, item in value.items()})
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        if not isinstance(value, StoredValue):
            return value
        try:
            return self.opened(read_item(value.item, self.most))
        except ModtoolError:
            return value

    def opened(self, item: Checkpoint) -> object:
        """The object of an item, whose storages get keys that no other item has."""
        pickle = item.pickles["data.pkl"]
        assert isinstance(pickle, Pickle)
        self.count += 1
        self.size += pickle.end
        for symbol in pickle.persistent_ids:
            identifier = storage_id(symbol)
            if identifier is None:
                continue
            if not isinstance(symbol.value, tuple):
                raise CorruptFileError(f"{item.target}: a storage that torch cannot load")
            key = f"{self.count}/{identifier.key}"
            symbol.value = (*symbol.value[:2], key, *symbol.value[3:])
            self.storages[key] = replace(item.storages[identifier.key], key=key)
        return item.root


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
