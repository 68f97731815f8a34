"""The code of a TorchScript archive: which attributes of a class are parameters, which buffers.

It is read as text, line by line, as `python_print.cpp` of torch 2.13 writes it, and not compiled.
"""

import re
from ast import literal_eval
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from modtool.errors import UnsafeFileError
from modtool.formats.files import Reader
from modtool.formats.zip_directory import Directory, read_member
from modtool.pickles.policy import words
from modtool.records import CallableUse, Severity

__all__ = ["ScriptClass", "ScriptCode", "classes_in", "operators_in", "read_code"]

MAX_CODE = 64 << 20
MAX_CONSTANT = 10_000

LINE = re.compile(
    r"^class (?P<cls>\w+)(?:\((?P<base>\w+)\))?:"
    r"|^  __(?P<kind>parameters|buffers)__ = \[(?P<names>.*)\]"
    r"|^  (?P<constant>\w+) : Final\[.*?\] = (?P<value>.*)"
    r"|^  def (?P<method>\w+)\(",
    re.MULTILINE,
)
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')

OPERATOR = re.compile(r"\b(?:ops\.(\w+)\.(\w+)|torch\.(save|from_file))\(([^\n]{0,80})")
# Operators of torch itself; the others come from a library that must be loaded first.
OWN_OPERATORS = words(
    "aten prim prims quantized _quantized static_runtime mkldnn mkldnn_prepacked mkl onednn sparse "
    "inductor profiler prepacked xnnpack _nnapi metal_prepack vulkan_prepack _test c10d "
    "_c10d_functional"
)
FILE_OPERATORS = frozenset({"aten::save", "aten::from_file"})


@dataclass(slots=True)
class ScriptClass:
    """A class of the code.

    Attributes:
        is_module: False for a plain TorchScript class.
        parameters: Names of attributes that are parameters.
        buffers: Names of attributes that are buffers.
        constants: What is `Final`, by name.
        methods: Names of methods.
    """

    is_module: bool
    parameters: frozenset[str] = frozenset()
    buffers: frozenset[str] = frozenset()
    constants: dict[str, object] = field(default_factory=dict)
    methods: set[str] = field(default_factory=set)


def classes_in(source: str) -> dict[str, ScriptClass]:
    """The classes of one file by name."""
    found: dict[str, ScriptClass] = {}
    current = ScriptClass(False)
    for line in LINE.finditer(source):
        if line["cls"]:
            current = found[line["cls"]] = ScriptClass(line["base"] == "Module")
        elif line["kind"] == "parameters":
            current.parameters = names_in(line["names"])
        elif line["kind"] == "buffers":
            current.buffers = names_in(line["names"])
        elif line["constant"]:
            current.constants[line["constant"]] = constant(line["value"])
        else:
            current.methods.add(line["method"])
    return found


def names_in(text: str) -> frozenset[str]:
    """The quoted names of a list."""
    return frozenset(found[1] for found in QUOTED.finditer(text))


def constant(text: str) -> object:
    """The value of a constant; text where it is no Python literal."""
    try:
        return literal_eval(text) if len(text) <= MAX_CONSTANT else text
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def operators_in(source: str, where: str) -> Iterator[CallableUse]:
    """The operators of one file that are not torch's own, or that reach files, each once."""
    found: dict[str, list[str]] = {}
    for call in OPERATOR.finditer(source):
        space, name, own, arguments = call.groups()
        operator = f"aten::{own}" if own else f"{space}::{name}"
        if operator in FILE_OPERATORS or operator.partition("::")[0] not in OWN_OPERATORS:
            found.setdefault(operator, []).append(arguments.rstrip("\\").rpartition(")")[0])
    for operator, calls in found.items():
        severity: Severity = "executes-code" if operator in FILE_OPERATORS else "unknown-callable"
        yield CallableUse(operator, len(calls), ascii(calls[0])[1:-1], severity, where)


@dataclass(slots=True)
class ScriptCode:
    """Every file of an archive's code.

    Attributes:
        sources: File name (`__torch__/torch/nn/modules/linear.py`) to text.
        classes: Qualified class name (`__torch__.torch.nn.modules.linear.Linear`) to class.
    """

    sources: Mapping[str, str]
    classes: Mapping[str, ScriptClass]

    def callables(self, folder: str) -> Iterator[CallableUse]:
        """What the code would call that is not torch's own, or that reaches files."""
        for name, source in self.sources.items():
            yield from operators_in(source, f"{folder}/{name}")


def read_code(reader: Reader, directory: Directory, folder: str) -> ScriptCode:
    """Read every file of code below a folder.

    Raises:
        UnsafeFileError: There is more of it than code can be.
        CorruptFileError: A member is damaged.
    """
    sources: dict[str, str] = {}
    classes: dict[str, ScriptClass] = {}
    left = MAX_CODE
    for name, member in directory.members.items():
        if not name.startswith(f"{folder}/") or not name.endswith(".py"):
            continue
        left -= member.size
        if left < 0:
            raise UnsafeFileError(f"{reader.path}: more than {MAX_CODE:,} bytes of code")
        file = name.removeprefix(f"{folder}/")
        sources[file] = read_member(reader, member, MAX_CODE).decode("utf-8", "replace")
        module = file.removesuffix(".py").replace("/", ".")
        for cls, found in classes_in(sources[file]).items():
            classes[f"{module}.{cls}"] = found
    return ScriptCode(sources, classes)
