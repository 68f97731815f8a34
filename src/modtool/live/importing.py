"""Import a Python file of the user's, and leave the interpreter as it was.

While the user's code runs, its own folder is importable and what it prints goes to stderr. Its
modules leave `sys.modules` afterwards, so that another `model.py` can be loaded next.
"""

import ast
import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from modtool.live.blame import is_library, model_error, shown_path
from modtool.live.targets import ModelTarget

__all__ = ["Surroundings", "attempt", "import_target", "surroundings_of"]

T = TypeVar("T")


@dataclass(slots=True)
class Surroundings:
    """What the user's code sees around it whenever it runs.

    Attributes:
        name: What the module is imported as.
        file: The file; None for a module found on the path.
        folders: Put in front of `sys.path`.
        own: The folder whose modules are the user's own; None where they stay imported.
        modules: The user's own modules, while they are not in `sys.modules`.
    """

    name: str
    file: Path | None
    folders: tuple[str, ...]
    own: Path | None
    modules: dict[str, ModuleType] = field(default_factory=dict)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Run the body as the user's code expects it; undo everything afterwards."""
        path, argv = sys.path[:], sys.argv[:]
        displaced = self.displace()
        before = set(sys.modules)
        sys.modules.update(self.modules)
        sys.path[:0] = self.folders
        sys.argv[:] = [str(self.file or self.name)]
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        finally:
            self.withdraw(before)
            sys.modules.update(displaced)
            sys.path[:], sys.argv[:] = path, argv

    def displace(self) -> dict[str, ModuleType]:
        """Take modules out of the way that stand under names of the user's own folder."""
        if self.own is None:
            return {}
        own = self.own_names()
        names = [name for name in sys.modules if name.partition(".")[0] in own]
        return {name: sys.modules.pop(name) for name in names if stands_in_the_way(name)}

    def own_names(self) -> set[str]:
        """What `import` could find in the user's own folder, and the module's own package."""
        folder = Path(self.folders[-1])
        found = {path.name.removesuffix(".py") for path in folder.iterdir()}
        return found | {self.name.partition(".")[0]}

    def withdraw(self, before: set[str]) -> None:
        """Move the user's own modules out of `sys.modules`."""
        if self.own is None:
            return
        for name in [name for name in sys.modules if name not in before]:
            if name == self.name or self.is_own(sys.modules[name]):
                self.modules[name] = sys.modules.pop(name)

    def is_own(self, module: ModuleType | None) -> bool:
        """True for a module whose file lies in the user's own folder."""
        file = getattr(module, "__file__", None)
        if file is None or self.own is None or is_library(file):
            return False
        return Path(file).resolve().is_relative_to(self.own)


def stands_in_the_way(name: str) -> bool:
    """True where `import name` would give a stranger instead of the user's own module."""
    file = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
    return file is not None and not is_library(file)


def surroundings_of(target: ModelTarget) -> Surroundings:
    """Where a target's code is imported from, and under which name."""
    if target.file is None:
        return Surroundings(target.place, None, (str(Path.cwd()),), None)
    file = target.file.resolve()
    depth = package_depth(file)
    if depth == 0:
        return Surroundings(own_name(file.stem), file, (str(file.parent),), file.parent)
    root = file.parents[depth]
    name = ".".join((*file.parts[-depth - 1 : -1], file.stem))
    return Surroundings(name, file, (str(root), str(file.parent)), file.parents[depth - 1])


def own_name(stem: str) -> str:
    """The name a file is imported as: its own, unless a library that is in use has that name."""
    file = getattr(sys.modules.get(stem), "__file__", None)
    taken = stem in sys.stdlib_module_names or (file is not None and is_library(file))
    return f"{stem}_model" if taken else stem


def package_depth(file: Path) -> int:
    """How many folders above a file belong to its package; 0 for a file that stands alone."""
    depth = 0
    while (file.parents[depth] / "__init__.py").exists() and depth + 2 < len(file.parents):
        depth += 1
    return max(depth, relative_level(file))


def relative_level(file: Path) -> int:
    """The most dots of a relative import in a file: such a file needs that many folders."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return 0
    levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return max(levels, default=0)


def import_target(target: ModelTarget, surroundings: Surroundings) -> ModuleType:
    """Import what a target names.

    Raises:
        ModelError: The user's code raised; the message has its file and line.
    """
    doing = f"importing {shown_path(str(target.file)) if target.file else target.place}"
    with surroundings.entered():
        return attempt(lambda: import_module(surroundings), doing)


def attempt(run: Callable[[], T], doing: str) -> T:
    """Run the user's code; what it raises becomes a ModelError. Ctrl-C stays what it is."""
    try:
        return run()
    except (Exception, SystemExit) as error:
        raise model_error(error, doing) from error


def import_module(surroundings: Surroundings) -> ModuleType:
    """Import by name; a file that stands alone is imported from its path."""
    if surroundings.file is None or "." in surroundings.name:
        return importlib.import_module(surroundings.name)
    spec = importlib.util.spec_from_file_location(surroundings.name, surroundings.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{surroundings.file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[surroundings.name] = module
    spec.loader.exec_module(module)
    return module
