"""What a class may add to its `state_dict()` that no file shows: `get_extra_state()`."""

import re
from collections.abc import Iterator, Mapping, Sequence

from modtool.notes import note
from modtool.records import ModuleNode, Note

__all__ = ["extra_state_notes", "unseen_extra_state_notes"]

METHOD = re.compile(r"^\s+(?:async )?def get_extra_state\b", re.MULTILINE)
SHOWN = 3


def extra_state_notes(modules: Sequence[ModuleNode], sources: Mapping[str, str]) -> Iterator[Note]:
    """A note for each module whose source, which the file carries, has `get_extra_state`.

    Args:
        modules: The module tree of a full model.
        sources: Class name to source.
    """
    for node in modules:
        if METHOD.search(sources.get(node.class_name, "")):
            message = f"{node.class_name}.get_extra_state() would add an entry that is not here"
            yield note("extra-state", node.path, message)


def unseen_extra_state_notes(
    modules: Sequence[ModuleNode], sources: Mapping[str, str]
) -> Iterator[Note]:
    """One note for all classes whose source the file does not carry; none of torch's has any.

    It is for whoever makes a state_dict of a full model; an edited full model loses nothing.

    Args:
        modules: The module tree of a full model.
        sources: Class name to source, where the file carries it.
    """
    names = [node.class_name for node in modules]  # a name without a module is made by torch.fx
    unseen = dict.fromkeys(
        name
        for name in names
        if "." in name and not name.startswith("torch.") and name not in sources
    )
    if unseen:
        shown = ", ".join([*unseen][:SHOWN]) + (", …" if len(unseen) > SHOWN else "")
        message = f"if {shown} has get_extra_state(), the entry that it adds is not here"
        yield note("extra-state", "", message)
