"""What a class may add to its `state_dict()` that no file shows: `get_extra_state()`."""

import re
from collections.abc import Iterator, Mapping, Sequence

from modtool.notes import note
from modtool.records import ModuleNode, Note

__all__ = ["extra_state_notes"]

METHOD = re.compile(r"^\s+(?:async )?def get_extra_state\b", re.MULTILINE)


def extra_state_notes(modules: Sequence[ModuleNode], sources: Mapping[str, str]) -> Iterator[Note]:
    """A note for each module whose source, which the file carries, has `get_extra_state`.

    Args:
        modules: The module tree of a full model.
        sources: Class name to source.
    """
    for node in modules:
        if node.class_name.startswith("torch."):
            continue  # `nn.Module` itself has the method, which says that there is nothing to add
        if METHOD.search(sources.get(node.class_name, "")):
            message = f"{node.class_name}.get_extra_state() would add an entry that is not here"
            yield note("extra-state", node.path, message)
