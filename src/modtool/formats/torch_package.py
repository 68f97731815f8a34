"""torch.package archives: pickles, Python modules and other resources in folders.

The storages of all pickles lie in `.data/`, TorchScript modules in `.data/ts_code/`. Layout: torch
2.13, `torch/package/package_exporter.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from modtool.errors import CorruptFileError, UnsafeFileError
from modtool.formats.archive_storages import (
    ArchiveStorages,
    archive_root,
    byteorder,
    stray_bytes,
    text_of,
)
from modtool.formats.files import Reader
from modtool.formats.torchscript import read_script
from modtool.formats.torchscript_code import ScriptCode, read_code
from modtool.formats.zip_directory import STORED, Directory, member_range, read_member
from modtool.pickles.contents import Contents, contents_of
from modtool.pickles.extra_state import extra_state_notes
from modtool.pickles.reader import Pickle, read_pickle
from modtool.pickles.roles import primary, role_of
from modtool.pickles.torch_objects import Tensors
from modtool.pickles.values import Names
from modtool.records import (
    ROOT,
    CallableUse,
    Checkpoint,
    Kind,
    ModuleNode,
    Note,
    Section,
    Storage,
    TensorInfo,
)

__all__ = ["NAME", "SUFFIXES", "claims", "read_archive"]

NAME = "torch-package"
SUFFIXES = (".pt", ".package", ".zip")

MAX_PICKLE = 1 << 30
MAX_SOURCES = 64 << 20
FREE = 10_000
UNPACKAGE = "torch.jit._script.unpackage_script_module"
PICKLE_HEADS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
MARKS = ("extern_modules", "python_version")


def claims(directory: Directory) -> bool:
    """True for an archive that says which modules it takes from outside."""
    root = archive_root(directory)
    return any(f"{root}/.data/{name}" in directory.members for name in MARKS)


def read_archive(reader: Reader, directory: Directory) -> Checkpoint:
    """Read every pickle of a package; each is a section where there are several.

    Raises:
        CorruptFileError: It contradicts itself.
    """
    package = Package(reader, directory, archive_root(directory))
    package.read_pickles()
    package.read_scripts()
    sources = package.sources()
    single = len(package.sections) <= 1 and "checkpoint" not in package.kinds
    return Checkpoint(
        target=reader.path,
        format=NAME,
        kind=package.kind() if single else "checkpoint",
        tensors=tuple(
            replace(tensor, section=None) if single else tensor for tensor in package.tensors
        ),
        modules=tuple(replace(node, section=None) if single else node for node in package.modules),
        sections=() if single else package.judged(),
        values=package.values,
        metadata=package.metadata(),
        notes=(*stray_bytes(directory), *package.notes, *package.extra_states(sources)),
        storages=package.storages,
        sources=sources,
        pickles=package.pickles,
        callables=tuple(package.callables(sources)),
    )


@dataclass(slots=True)
class Package:
    """What was read of a package so far."""

    reader: Reader
    directory: Directory
    root: str
    tensors: list[TensorInfo] = field(default_factory=list)
    modules: list[ModuleNode] = field(default_factory=list)
    pickled_modules: list[ModuleNode] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    storages: dict[str, Storage] = field(default_factory=dict)
    pickles: dict[str, Pickle] = field(default_factory=dict)
    section_names: Names = field(default_factory=Names)
    # number of a script -> its section, and that of the pickle that holds it
    scripts: dict[str, str] = field(default_factory=dict)
    holders: dict[str, str] = field(default_factory=dict)
    code: ScriptCode = field(default_factory=lambda: ScriptCode({}, {}))

    def names(self) -> Iterator[str]:
        """What is inside, without the root folder and the package's own records."""
        for name in self.directory.members:
            if not name.startswith(f"{self.root}/"):
                raise CorruptFileError(f"member {name!r} lies outside of the folder {self.root!r}")
            inner = name.removeprefix(f"{self.root}/")
            if not inner.startswith(".data/") and inner not in ("version", "byteorder"):
                yield inner

    def is_pickle(self, name: str) -> bool:
        """True for what `save_pickle` wrote, under whatever name."""
        member = self.directory.members[f"{self.root}/{name}"]
        if name.endswith(".pkl"):
            return True
        if name.endswith(".py") or member.method != STORED or member.encrypted or member.size < 3:
            return False
        place = member_range(self.reader, member)
        start = place.offset - self.reader.base
        head = self.reader.read(start, 2)
        return head in PICKLE_HEADS and self.reader.read(start + member.size - 1, 1) == b"."

    def pickle(self, name: str) -> Pickle:
        """One pickle, by its name below the root."""
        data = read_member(self.reader, self.directory.members[f"{self.root}/{name}"], MAX_PICKLE)
        found = read_pickle(data, where=f"{self.reader.path}: {name}")
        self.pickles[name] = found
        return found

    def read_pickles(self) -> None:
        """Every resource that is a pickle."""
        names = [name for name in self.names() if self.is_pickle(name)]
        for name in names:
            self.read_resource(name, len(names))

    def read_resource(self, name: str, among: int) -> None:
        """The tensors and values of one pickle among so many."""
        pickle = self.pickle(name)
        order = byteorder(self.reader, self.directory)
        folder = f"{self.root}/.data"
        place = ArchiveStorages(
            self.reader, self.directory, folder, order, suffix=".storage", found=self.storages
        )
        size = self.directory.members[f"{self.root}/{name}"].size
        tensors = Tensors(place.find)
        contents = contents_of(pickle.root, tensors, 40 * size + FREE // among, among)
        self.notes.extend(contents.notes)
        section = name.removesuffix(".pkl").replace("/", ".")
        whole = Section(section, role_of(section, pickle.root, tensors))
        self.add(name, contents, whole)

    def add(self, name: str, contents: Contents, whole: Section) -> None:
        """Take what one pickle holds: a section, or those of a training checkpoint."""
        if contents.values:
            self.values[name] = contents.values
        if not contents.tensors:
            return
        self.kinds.append(contents.kind)
        given = {
            part.name: self.named(f"{whole.name}.{part.name}".removesuffix("."), part.role)
            for part in contents.sections or (replace(whole, name=ROOT),)
        }
        if contents.kind == "full_model":
            for number in scripts_in(self.pickles[name]):
                self.holders.setdefault(number, given[ROOT])
        nodes = [replace(node, section=given[node.section or ROOT]) for node in contents.modules]
        self.modules.extend(nodes)
        self.pickled_modules.extend(nodes)
        self.tensors.extend(
            replace(tensor, section=given[tensor.section or ROOT]) for tensor in contents.tensors
        )

    def named(self, name: str, role: str) -> str:
        """Record a section; of two with one name the later is `a.b (2)`."""
        given = self.section_names.give(name)
        self.sections.append(Section(given, role))
        return given

    def read_scripts(self) -> None:
        """The TorchScript modules."""
        folder = f"{self.root}/.data/ts_code"
        marks = [
            name.removeprefix(f"{folder}/").removesuffix("/data.pkl")
            for name in self.directory.members
            if name.startswith(f"{folder}/") and name.endswith("/data.pkl")
        ]
        self.code = read_code(self.reader, self.directory, f"{folder}/code")
        for mark in marks:
            self.read_script(mark, len(marks))

    def read_script(self, number: str, among: int) -> None:
        """One TorchScript module among so many; its storages lie among those of the package."""
        pickles = {
            part: self.pickle(f".data/ts_code/{number}/{part}")
            for part in ("data.pkl", "constants.pkl")
            if f"{self.root}/.data/ts_code/{number}/{part}" in self.directory.members
        }
        nodes, tensors = read_script(
            self.reader,
            self.directory,
            self.root,
            self.code,
            pickles,
            self.storages,
            (".data", ".data"),
            among,
        )
        section = self.scripts[number] = self.named(f"ts_code.{number}", "model")
        self.kinds.append("full_model")
        self.modules.extend(replace(node, section=section) for node in nodes)
        self.tensors.extend(replace(tensor, section=section) for tensor in tensors)

    def judged(self) -> tuple[Section, ...]:
        """The sections; a script inside a pickled module is what that module is."""
        inside = {
            script: self.holders[number]
            for number, script in self.scripts.items()
            if number in self.holders
        }
        apart = [section for section in self.sections if section.name not in inside]
        roles = {section.name: section.role for section in primary(apart, self.tensors)}
        return tuple(
            replace(section, role=roles[inside.get(section.name, section.name)])
            for section in self.sections
        )

    def kind(self) -> Kind:
        """What the only section is."""
        return self.kinds[0] if self.kinds else "values"

    def sources(self) -> dict[str, str]:
        """The Python modules inside, by file name, and the TorchScript code."""
        found = dict(self.code.sources)
        left = MAX_SOURCES
        for name in self.names():
            if name.endswith(".py"):
                member = self.directory.members[f"{self.root}/{name}"]
                left -= member.size
                if left < 0:
                    raise UnsafeFileError(f"{self.reader.path}: more sources than a package has")
                text = read_member(self.reader, member, MAX_SOURCES)
                found[name] = text.decode("utf-8", "replace")
        return found

    def extra_states(self, sources: dict[str, str]) -> Iterator[Note]:
        """Notes on classes with `get_extra_state`, by the files that define them."""
        texts: dict[str, str] = {}
        for node in self.pickled_modules:
            stem = node.class_name.rpartition(".")[0].replace(".", "/")
            text = sources.get(f"{stem}.py", sources.get(f"{stem}/__init__.py"))
            if text is not None:
                texts[node.class_name] = text
        yield from extra_state_notes(self.pickled_modules, texts)

    def metadata(self) -> dict[str, str]:
        """What is inside beside pickles, and what comes from outside."""
        found = {}
        for mark in MARKS:
            text = text_of(self.reader, self.directory, f"{self.root}/.data/{mark}")
            if text:
                found[mark] = text.strip()
        resources = [
            name for name in self.names() if name not in self.pickles and not name.endswith(".py")
        ]
        if resources:
            found["resources"] = "\n".join(resources)
        return found

    def callables(self, sources: dict[str, str]) -> Iterator[CallableUse]:
        """The modules inside, which a load executes, and what the TorchScript code would call."""
        for name in sources:
            if name not in self.code.sources:
                module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                arguments = "the package's own Python code runs when it is imported"
                yield CallableUse(module, 0, arguments, "executes-code", name)
        yield from self.code.callables(".data/ts_code/code")


def scripts_in(pickle: Pickle) -> Iterator[str]:
    """The numbers of the TorchScript modules that a pickled object holds."""
    for symbol in pickle.persistent_ids:
        match symbol.value:
            case ("reduce_package", _, function, (str(number),)):
                if getattr(function, "qualified", "") == UNPACKAGE:
                    yield number
