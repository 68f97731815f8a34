"""Classes that are there for a while and gone afterwards, as when somebody else saved the file."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def gone(name: str, source: str) -> Iterator[Any]:
    """A module of this name and source, importable inside the block only."""
    module = types.ModuleType(name)
    exec(source, module.__dict__)  # the classes take the module's name from its globals
    sys.modules[name] = module
    try:
        yield module
    finally:
        del sys.modules[name]
