"""What `weights_only=True` makes of a file, against torch itself."""

import _compat_pickle
import argparse
import collections
import datetime
import functools
import importlib
import json
import os
import pathlib
import pickle
import pickletools
import pkgutil
import subprocess
import sys
import types
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._weights_only_unpickler import _get_allowed_globals
from torch.nn.utils import prune

from modtool.formats import open_checkpoint
from modtool.pickles.allowed_names import ALLOWED, KNOWN, REGISTERED
from modtool.pickles.callables import callables_of, weights_only_of
from modtool.pickles.policy import severity_of
from modtool.pickles.reader import read_pickle
from modtool.pickles.symbols import Call, Global
from modtool.pickles.weights_only import WeightsOnly, weights_only
from modtool.pickles.writer import write_pickle
from tests.gone import gone
from tests.pickles.test_policy import Evil


def test_the_allowed_globals_are_those_of_torch() -> None:
    assert set(_get_allowed_globals()) == ALLOWED


@pytest.mark.parametrize("name", sorted(ALLOWED | REGISTERED.keys()))
def test_what_torch_allows_is_ordinary(name: str) -> None:
    assert severity_of(name) == "ordinary"


def real_answer(path: Path) -> bool:
    """Whether torch itself accepts the file."""
    try:
        torch.load(path, weights_only=True)
    except pickle.UnpicklingError:
        return False
    except AttributeError as error:  # a mistake in torch's reading of legacy files
        return "UntypedStorage" not in str(error)
    return True


def verdict_of(path: Path) -> WeightsOnly:
    found = weights_only_of(open_checkpoint(str(path)))
    assert found is not None
    return found


def saved_objects() -> dict[str, Callable[[], object]]:
    """Things that people save; torch accepts some and refuses others."""
    linear = nn.Linear(2, 2)
    return {
        "state": linear.state_dict,
        "model": lambda: linear,
        "lazy": lambda: nn.UninitializedParameter(),
        "containers": lambda: [collections.OrderedDict(a=1), collections.Counter("ab"), {1, 2}],
        "default dict": lambda: collections.defaultdict(list, a=[1]),
        "deque": lambda: collections.deque([1]),
        "frozen set": lambda: frozenset({1}),
        "bytes": lambda: [b"abc", bytearray(b"x"), b""],
        "complex": lambda: 2 + 3j,
        "numbers": lambda: [1, -1, 300, 70000, 2**40, 2**5000, 1.5, True, None],
        "types": lambda: [torch.float16, torch.device("cpu"), torch.Size([2]), torch.qint8],
        "layouts": lambda: [torch.eye(2).to_sparse(), torch.eye(2, device="meta")],
        "parameter": lambda: nn.Parameter(torch.ones(1)),
        "attribute": with_attribute,
        "storage": lambda: torch.ones(2).untyped_storage(),
        "namespace": lambda: argparse.Namespace(a=1),
        "path": lambda: pathlib.PurePosixPath("a/b"),
        "when": lambda: datetime.timedelta(1),
        "numpy scalar": lambda: numpy.float64(1.5),
        "numpy array": lambda: numpy.arange(3, dtype=numpy.int16),
        "numpy text": lambda: numpy.array(["a", "bc"]),
        "numpy objects": lambda: numpy.array([1, "a"], dtype=object),
        "optimizer": lambda: torch.optim.SGD(linear.parameters()).state_dict(),
        "whole optimizer": lambda: torch.optim.SGD(linear.parameters()),
        "function": lambda: torch.nn.functional.relu,
        "shape of rows": lambda: [(1, 2, 3, 4), [], (), {}],
    }


def with_attribute() -> torch.Tensor:
    tensor = torch.ones(2)
    tensor.note = "kept"  # type: ignore[attr-defined]
    return tensor


CASES = list(saved_objects())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_the_verdict_is_that_of_torch_and_the_line_helps(
    tmp_path: Path, case: str, zipped: bool, protocol: int
) -> None:
    path = tmp_path / "x.pth"
    value = saved_objects()[case]()
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    verdict = verdict_of(path)
    assert verdict.accepted == real_answer(path)
    assert bool(verdict.reasons) is not verdict.accepted
    if verdict.line:
        with allowed(verdict):
            assert real_answer(path)
    elif not verdict.accepted:
        assert not verdict.possible


class allowed:  # noqa: N801
    """Runs the line that modtool gives, and takes it back afterwards."""

    def __init__(self, verdict: WeightsOnly) -> None:
        self.verdict = verdict

    def __enter__(self) -> None:
        exec(self.verdict.line, {"torch": torch})

    def __exit__(self, *error: object) -> None:
        torch.serialization.clear_safe_globals()


def test_the_line_of_a_model_whose_class_is_inside_another(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    source = (
        "from torch import nn\n"
        "class Outer:\n"
        "    class Net(nn.Module):\n"
        "        def __init__(self):\n"
        "            super().__init__()\n"
        "            self.fc = nn.Linear(2, 2)\n"
    )
    with gone("policy_nested", source) as module:
        torch.save(module.Outer.Net(), path)
        verdict = verdict_of(path)
        assert verdict.needed == (
            "getattr",
            "policy_nested.Outer",
            "torch.nn.modules.linear.Linear",
            "policy_nested.Outer.Net",
        )
        assert verdict.imports == ("policy_nested",)
        with allowed(verdict):
            assert real_answer(path)


# In a process that has only imported torch, each file after the line that modtool prints for it.
PASTING = """
import json, os, sys, torch
for path, line in json.load(sys.stdin):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    try:
        exec(line, {"torch": torch})
        torch.load(path, weights_only=True)
    except Exception as error:
        print(path, line, repr(error)[-300:], flush=True)
    os._exit(0)
print("done")
"""


def pasted(paths: Iterable[Path]) -> list[str]:
    """What goes wrong when the lines of these files are pasted, each into a fresh process."""
    lines = [(str(path), verdict_of(path).line) for path in paths]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PASTING],
        input=json.dumps(lines),
        check=True,
        capture_output=True,
        text=True,
    )
    *wrong, last = ran.stdout.splitlines()
    assert last == "done"
    return wrong


def saved(folder: Path, values: Mapping[str, object]) -> list[Path]:
    """A file of each value."""
    paths = [folder / f"{name}.pth" for name in values]
    for path, value in zip(paths, values.values(), strict=True):
        torch.save(value, path)
    return paths


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_the_line_runs_as_it_is_after_importing_torch(tmp_path: Path) -> None:
    pruning: Any = prune.l1_unstructured  # untyped
    linear = nn.Linear(2, 2)
    sgd = torch.optim.SGD(linear.parameters())
    values = {
        "argparse": argparse.Namespace(a=1),
        "collections": collections.UserDict(a=1),
        "datetime": datetime.datetime.now(datetime.UTC),
        "functools": functools.partial(nn.functional.relu, inplace=True),
        "numpy": [numpy.float64(1.5), numpy.arange(3), numpy.datetime64("2020-01-01")],
        "numpy.ma": numpy.ma.array([1, 2], mask=[False, True]),
        "numpy.random": numpy.random.default_rng(0),
        "pathlib": pathlib.PurePosixPath("a/b"),
        "types": types.SimpleNamespace(a=list[int]),
        "torch": [torch.__version__, torch.sigmoid, torch.ones(2).max(0), torch.Generator()],
        "torch._dynamo": torch.compile(linear),
        "torch.ao": [torch.ao.quantization.QuantStub(), torch.ao.quantization.MinMaxObserver()],
        "torch.distributions": torch.distributions.Normal(0.0, 1.0),
        "torch.nn": nn.Sequential(linear, nn.TransformerEncoderLayer(4, 2, 8)),
        "torch.nn.utils": pruning(nn.Linear(2, 2), "weight", 1),
        "torch.optim": [sgd, torch.optim.lr_scheduler.StepLR(sgd, 3)],
    }
    assert pasted(saved(tmp_path, values)) == []


def test_modules_that_need_no_import_come_with_torch() -> None:
    brought = subprocess.run(
        [sys.executable, "-c", "import sys, torch; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    for room in (nn.modules, torch.optim):
        for each in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            if not each.ispkg:
                assert bool(KNOWN.fullmatch(each.name)) is (each.name in brought), each.name


class Reduced:
    """An object that is pickled as somebody else's."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def test_types_that_numpy_makes_and_the_file_does_not_name(tmp_path: Path) -> None:
    records: Any = numpy.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    makers: Any = vars(importlib.import_module("numpy.random._pickle"))
    bits, mersenne = numpy.random.PCG64(0), numpy.random.MT19937(0)
    values = {
        "complex": [numpy.clongdouble(1), numpy.ones(2, "G"), numpy.dtype("G")],
        "records": records,
        "state": numpy.random.RandomState(0),
        "state of NumPy 1": Reduced(makers["__randomstate_ctor"], ("MT19937",), mersenne.state),
        "generator of NumPy 1": Reduced(makers["__generator_ctor"], ("PCG64",), bits.state),
        "bits of NumPy 1": Reduced(makers["__bit_generator_ctor"], ("PCG64",), bits.state),
    }
    found = {path.stem: path for path in saved(tmp_path, values)}
    assert "numpy.dtypes.CLongDoubleDType" in verdict_of(found["complex"]).needed
    assert "numpy.dtypes.VoidDType" in verdict_of(found["records"]).needed
    assert "numpy.random.RandomState" in verdict_of(found["state"]).needed
    assert pasted(found.values()) == []


PYTHON_2 = (
    *_compat_pickle.NAME_MAPPING,
    *(("Cookie", "SimpleCookie"), ("HTMLParser", "HTMLParser"), ("StringIO", "StringIO")),
    *(("cPickle", "Unpickler"), ("httplib", "HTTPException"), ("thread", "RLock")),
    *(("urllib2", "Request"), ("urlparse", "ParseResult"), ("_abcoll", "Sized")),
)


def test_names_of_python_2_are_allowed_under_the_names_in_the_file(tmp_path: Path) -> None:
    paths = [
        archived(tmp_path / f"{module}.{name}.pth", write_pickle([Global(module, name)]))
        for module, name in PYTHON_2
    ]
    never = [path.stem for path in paths if not verdict_of(path).possible]
    assert never == ["__builtin__.intern"]  # in `sys`, which is always blocked
    assert pasted(path for path in paths if path.stem not in never) == []


def test_what_python_3_saves_under_names_of_python_2(tmp_path: Path) -> None:
    values = {
        "error": ValueError("x"),
        "missing": FileNotFoundError("x"),
        "union": int | str,
        "function": functools.reduce,
    }
    paths = saved(tmp_path, values)
    assert verdict_of(paths[0]).needed == ("(ValueError, 'exceptions.ValueError')",)
    assert verdict_of(paths[3]).needed == ("(functools.reduce, 'functools.reduce')",)
    assert pasted(paths) == []


def renamed(path: Path, names: Mapping[str, str]) -> Path:
    """The same file with other names in its pickle."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if name.endswith("/data.pkl"):
                for old, new in names.items():
                    assert old.encode() in data
                    data = data.replace(old.encode(), new.encode())
            archive.writestr(name, data)
    return path


@pytest.mark.filterwarnings("ignore")
def test_quantized_models_as_torch_1_names_their_classes(tmp_path: Path) -> None:
    ao: Any = torch.ao.quantization
    plain = nn.Sequential(ao.QuantStub(), nn.Conv2d(2, 2, 1), nn.ReLU(), ao.DeQuantStub()).eval()
    plain.qconfig = ao.get_default_qconfig("fbgemm")
    prepared = ao.prepare(ao.fuse_modules(plain, [["1", "2"]]))
    prepared(torch.ones(1, 2, 3, 3))
    values = {
        "dynamic": ao.quantize_dynamic(nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2))),
        "static": ao.convert(prepared),
        "observers": [ao.QuantStub(), ao.HistogramObserver(), ao.FakeQuantize()],
    }
    dynamic, static, observers = saved(tmp_path, values)
    for path in (dynamic, static):
        renamed(path, {"torch.ao.nn.": "torch.nn."})
    renamed(observers, {"torch.ao.quantization.": "torch.quantization."})
    name = "torch.nn.quantized.dynamic.modules.linear.Linear"
    assert f"({name}, '{name}')" in verdict_of(dynamic).needed
    assert pasted([dynamic, static, observers]) == []


def test_attention_as_older_torch_names_its_parts(tmp_path: Path) -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    layer.activation = nn.functional.gelu
    torch.save(layer, tmp_path / "x.pth")
    names = {
        "torch._C._nn\ngelu": "torch.nn.functional\ngelu",
        "linear\nNonDynamicallyQuantizableLinear": "linear\n_LinearWithBias",
    }
    path = renamed(tmp_path / "x.pth", names)
    assert {use.severity for use in callables_of(open_checkpoint(str(path)))} == {"ordinary"}
    assert set(verdict_of(path).needed) >= {
        "(torch.nn.functional.gelu, 'torch.nn.functional.gelu')",
        "(torch.nn.modules.linear.NonDynamicallyQuantizableLinear, "
        "'torch.nn.modules.linear._LinearWithBias')",
    }
    assert pasted([path]) == []


def test_a_gradient_scaler_as_torch_2_2_names_its_parts(tmp_path: Path) -> None:
    scaler = torch.amp.grad_scaler.GradScaler("cpu")
    torch.save([scaler, torch.amp.grad_scaler.OptState.READY], tmp_path / "x.pth")
    names = {"ctorch.amp.grad_scaler\n": "ctorch.cuda.amp.grad_scaler\n"}
    path = renamed(tmp_path / "x.pth", names)
    assert {use.severity for use in callables_of(open_checkpoint(str(path)))} == {"ordinary"}
    assert pasted([path]) == []


def test_what_lies_in_torch_itself_is_allowed_with_its_name(tmp_path: Path) -> None:
    names = ("sigmoid", "tanh", "relu", "contiguous_format", "preserve_format", "strided")
    found = write_pickle([Global("torch", name) for name in names])
    path = archived(tmp_path / "x.pth", found)
    assert verdict_of(path).needed == tuple(f"(torch.{name}, 'torch.{name}')" for name in names)
    assert pasted([path]) == []


SAVING = """
import torch, torch.distributed as dist
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor import DTensor, distribute_tensor, init_device_mesh
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("a", "b"))
shared = distribute_tensor(torch.ones(4, 3), mesh, [Shard(0), Replicate()])
partial = DTensor.from_local(torch.ones(2, 2), mesh, [Partial(), Replicate()])
torch.save({"x": shared, "y": partial}, "shared.pth")
parts = [torch.ones(2, 3), torch.ones(1, 3)]
torch.save({"x": torch.nested.nested_tensor(parts, layout=torch.jagged)}, "jagged.pth")
"""
# What torch makes of each file before and after the line that modtool gives.
LOADING = """
import torch
for path, line in (("shared.pth", SHARED), ("jagged.pth", JAGGED)):
    for step in ("", line):
        exec(step)
        try:
            print(path, list(torch.load(path, weights_only=True)))
        except Exception as error:
            print(path, "must be imported" in str(error))
"""


def test_modules_of_torch_whose_import_is_all_that_is_needed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", SAVING], cwd=tmp_path, check=True)
    shared, jagged = (verdict_of(tmp_path / f"{name}.pth") for name in ("shared", "jagged"))
    assert (shared.accepted, shared.reasons, shared.line) == (
        False,
        ("torch.distributed.tensor must be imported first",),
        "import torch.distributed.tensor",
    )
    assert (jagged.accepted, jagged.line) == (False, "import torch._dynamo")
    for name in ("shared", "jagged"):
        uses = callables_of(open_checkpoint(str(tmp_path / f"{name}.pth")))
        assert {use.severity for use in uses} == {"ordinary"}
    program = LOADING.replace("SHARED", repr(shared.line)).replace("JAGGED", repr(jagged.line))
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert ran.stdout.splitlines() == [
        "shared.pth True",
        "shared.pth ['x', 'y']",
        "jagged.pth True",
        "jagged.pth ['x']",
    ]


DTENSORS = {
    "torch.distributed.tensor\nDTensor": "torch.distributed._tensor.api\nDTensor",
    "tensor.placement_types\nPartial": "_tensor.placement_types\n_Partial",
    "tensor.placement_types\nShard": "_tensor.placement_types\nShard",
    "tensor.placement_types\nReplicate": "_tensor.placement_types\nReplicate",
    "tensor._dtensor_spec\nDTensorSpec": "_tensor.placement_types\nDTensorSpec",
    "tensor._dtensor_spec\nTensorMeta": "_tensor.placement_types\nTensorMeta",
    "torch.distributed.device_mesh\n": "torch.distributed._tensor.device_mesh\n",
}


def test_tensors_of_several_devices_as_torch_2_0_names_their_classes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", SAVING], cwd=tmp_path, check=True)
    path = renamed(tmp_path / "shared.pth", DTENSORS)
    found = open_checkpoint(str(path))
    assert [(each.name, each.shape) for each in found.tensors] == [("x", (4, 3)), ("y", (2, 2))]
    assert {use.severity for use in callables_of(found)} == {"ordinary"}
    name = "torch.distributed._tensor.placement_types._Partial"
    assert (
        f"(torch.distributed.tensor.placement_types.Partial, '{name}')" in verdict_of(path).needed
    )
    assert pasted([path]) == []


def test_what_can_never_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save([Evil(os.system, "true")], path)
    verdict = verdict_of(path)
    assert not real_answer(path)
    name = f"{os.system.__module__}.system"
    assert verdict.reasons == (f"{name} lies in a module that is always blocked",)
    assert (verdict.possible, verdict.line) == (False, "")


def archived(path: Path, data: bytes) -> Path:
    """A torch zip around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/version", "3\n")
        archive.writestr("x/byteorder", "little")
    return path


CALLS = [
    Call(Global("collections", "OrderedDict"), (), items={"a": 1}),
    Call(Global("collections", "OrderedDict"), (), state={"a": 1}),
    Call(Global("collections", "Counter"), (), items={"a": 1}),
    Call(Global("collections", "OrderedDict"), (), appended=[1]),
    Call(Global("torch", "Size"), ((1, 2),)),
    Call(Global("torch", "Size"), ((1, 2),), how="new"),
    Call(Global("torch", "device"), ("cpu",)),
    Call(Global("__builtin__", "set"), ([1],)),
    Call(Global("__builtin__", "bytearray"), (2,)),
    Call(Global("__builtin__", "frozenset"), ([1],)),
    Call(Global("__builtin__", "list"), ()),
    Call(Global("_codecs", "encode"), ("a", "latin1"), state={"a": 1}),
    Call(Call(Global("collections", "OrderedDict"), ()), ()),
    Call(Call(Global("torch", "device"), ("cpu",)), ()),
    Call(Global("sys", "exit"), ()),
    Global("torch", "float32"),
    Global("torch", "load"),
    Global("nt", "anything"),
    Global("collections", "deque"),
]


@pytest.mark.parametrize("index", range(len(CALLS)))
def test_the_rules_for_calls_are_those_of_torch(tmp_path: Path, index: int) -> None:
    path = archived(tmp_path / "x.pth", write_pickle([CALLS[index]]))
    assert verdict_of(path).accepted == real_answer(path)


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False),
        st.text(max_size=4),
        st.binary(max_size=4),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.tuples(inner, inner),
        st.frozensets(st.integers(0, 9), max_size=3),
        st.sets(st.integers(0, 9), max_size=3),
    ),
    max_leaves=6,
)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@settings(max_examples=150, deadline=None)
@given(value=values, protocol=st.integers(0, 5), optimise=st.booleans())
def test_plain_values_of_every_protocol(
    tmp_path_factory: pytest.TempPathFactory, value: object, protocol: int, optimise: bool
) -> None:
    data = pickle.dumps(value, protocol)
    path = archived(
        tmp_path_factory.mktemp("plain") / "x.pth", pickletools.optimize(data) if optimise else data
    )
    assert verdict_of(path).accepted == real_answer(path)


def test_opcodes_are_counted_by_their_names() -> None:
    data = b"\x80\x02(I1\nF1.5\nS'a'\nl."
    found = weights_only({"x": read_pickle(data)})
    assert found.reasons == (
        "the opcode FLOAT is not supported",
        "the opcode INT is not supported",
        "the opcode STRING is not supported",
        "the opcode LIST is not supported",
    )


def test_the_source_of_the_classes_of_a_legacy_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(nn.Linear(1, 1), path, _use_new_zipfile_serialization=False)
    verdict = verdict_of(path)
    assert not real_answer(path)
    assert "object: a persistent id of 'module', not of a storage" in verdict.reasons
    assert not verdict.possible


def test_a_file_without_pickles_has_no_verdict(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    found = open_checkpoint(str(tmp_path / "x.safetensors"))
    assert weights_only_of(found) is None
    assert callables_of(found) == ()


def test_classes_whose_modules_are_hidden_by_functions(tmp_path: Path) -> None:
    path = tmp_path / "normed.pth"
    weight_norm: Any = torch.nn.utils.weight_norm
    spectral_norm: Any = torch.nn.utils.spectral_norm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(weight_norm(nn.Linear(3, 2)), spectral_norm(nn.Linear(2, 2)))
    torch.save(model, path)
    verdict = verdict_of(path)
    hidden = "__import__(\"importlib\").import_module('torch.nn.utils.weight_norm').WeightNorm"
    assert hidden in verdict.needed
    with torch.serialization.safe_globals([]):  # forgets what is added in it
        exec(verdict.line, {"torch": torch})
        assert isinstance(torch.load(path, weights_only=True), nn.Sequential)


def test_a_marker_of_an_optimizer_whose_module_is_hidden(tmp_path: Path) -> None:
    required = sys.modules["torch.optim.optimizer"].__dict__["required"]
    assert pasted(saved(tmp_path, {"required": required, "old": torch.autograd.Variable})) == []


def test_a_module_whose_name_python_cannot_spell(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with gone("remote-code", "class Net: pass") as module:
        torch.save(module.Net(), path)
        verdict = verdict_of(path)
        assert (verdict.imports, verdict.needed) == (
            (),
            ("__import__(\"importlib\").import_module('remote-code').Net",),
        )
        with allowed(verdict):
            assert real_answer(path)


@pytest.mark.parametrize(
    ("module", "name", "line"),
    [
        ("a", "b]); print('pwned'); x([c", ""),
        ("a", "b.<locals>.c", ""),
        ("a", "", ""),
        (
            "a; print('pwned')",
            "b",
            'torch.serialization.add_safe_globals([__import__("importlib").import_module('
            "\"a; print('pwned')\").b])",
        ),
    ],
)
def test_a_name_cannot_write_code_into_the_line(
    tmp_path: Path, module: str, name: str, line: str
) -> None:
    path = archived(tmp_path / "x.pth", f"\x80\x02c{module}\n{name}\n.".encode("latin1"))
    verdict = verdict_of(path)
    assert (verdict.line, verdict.possible) == (line, bool(line))
    assert not real_answer(path)


def test_a_wrapped_model_with_constants_among_its_attributes(tmp_path: Path) -> None:
    path = tmp_path / "wrapped.pth"
    model = nn.DataParallel(nn.Linear(3, 2))
    model.settings = (..., NotImplemented)  # type: ignore[assignment]
    torch.save(model, path)
    verdict = verdict_of(path)
    with torch.serialization.safe_globals([]):
        exec(verdict.line, {"torch": torch})
        loaded = torch.load(path, weights_only=True)
    assert isinstance(loaded, nn.DataParallel)
    assert loaded.settings == (..., NotImplemented)
