"""What a real load would run, and what `weights_only=True` says, against torch itself."""

import argparse
import collections
import datetime
import functools
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import fx, nn

from modtool.formats import open_checkpoint
from modtool.pickles.callables import (
    callables_in,
    callables_of,
    findings,
    summary_of_arguments,
)
from modtool.pickles.policy import imported_name, severity_of
from modtool.pickles.reader import read_pickle
from modtool.pickles.symbols import Call, Global, PersistentId
from modtool.pickles.writer import write_pickle
from modtool.records import CallableUse
from tests.gone import gone

# -- the tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "posix.system", "nt.system", "subprocess.Popen", "subprocess.check_output"),
        *("builtins.eval", "builtins.exec", "builtins.getattr", "builtins.__import__"),
        *("importlib.import_module", "runpy.run_path", "pty.spawn", "webbrowser.open"),
        *("shutil.rmtree", "socket.socket", "urllib.request.urlopen", "pickle.loads"),
        *("operator.attrgetter", "functools.partial", "types.FunctionType", "marshal.loads"),
        *("torch.load", "torch.hub.load", "torch.storage._load_from_bytes", "numpy.load"),
        *("torch.utils.cpp_extension.load_inline", "torch.serialization.load", "pip.main"),
        *("torch.fx.graph_module.reduce_graph_module", "numpy.testing._private.utils.runstring"),
        *("torch.serialization.os.system", "collections.sys.modules"),
        *("anything.subprocess.Popen", "anything.__builtins__.eval", "idlelib.pyshell.main"),
    ],
)
def test_what_is_known_to_execute_code(name: str) -> None:
    assert severity_of(name) == "executes-code"


@pytest.mark.parametrize(
    "name",
    [
        *("mymodel.Net", "torch.nn.modules.linear.load", "torch.nn.functional.relu"),
        *("torch.nn.modules.linear.os", "collections.namedtuple", "torch._utils.unknown"),
        *("torch", "os", "a result of mymodel.make", "sklearn.svm.SVC"),
    ],
)
def test_all_else_is_unknown(name: str) -> None:
    assert severity_of(name) == "unknown-callable"


def test_what_is_mentioned_and_not_called() -> None:
    assert severity_of("torch.nn.functional.relu", called=False) == "ordinary"
    assert severity_of("mymodel.relu", called=False) == "unknown-callable"
    assert severity_of("os.system", called=False) == "executes-code"


def is_module_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def test_every_module_class_of_torch_is_ordinary() -> None:
    classes = [value for value in vars(nn).values() if is_module_class(value)]
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in classes}
    assert len(names) > 150
    assert {name for name in names if severity_of(name) != "ordinary"} == set()


@pytest.mark.parametrize(
    ("module", "name", "protocol", "expected"),
    [
        ("__builtin__", "eval", 2, "builtins.eval"),
        ("__builtin__", "eval", 3, "__builtin__.eval"),
        ("copy_reg", "_reconstructor", 0, "copyreg._reconstructor"),
        ("itertools", "imap", 2, "builtins.map"),
        ("commands", "getoutput", 2, "subprocess.getoutput"),
        ("cPickle", "loads", 1, "pickle.loads"),
        ("torch._utils", "_rebuild_tensor", 2, "torch._utils._rebuild_tensor"),
    ],
)
def test_python_2_names_are_mapped(module: str, name: str, protocol: int, expected: str) -> None:
    assert imported_name(Global(module, name), protocol) == expected
    if protocol < 3 and module != "torch._utils":
        found: Any = pickle._Unpickler(io.BytesIO())
        found.proto = protocol
        made = found.find_class(module, name)
        assert made is functools.reduce(
            getattr, expected.split(".")[1:], sys.modules[expected.split(".")[0]]
        )


# -- uses ------------------------------------------------------------------------------------------


class Evil:
    """Asks for a call when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def uses(data: bytes) -> dict[str, CallableUse]:
    return {use.name: use for use in callables_in(read_pickle(data), "data.pkl")}


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_told_with_its_arguments(protocol: int) -> None:
    data = pickle.dumps({"a": Evil(os.system, "echo hello"), "b": Evil(os.system, "no")}, protocol)
    name = f"{os.system.__module__}.system"
    assert uses(data) == {name: CallableUse(name, 2, "'echo hello'", "executes-code", "data.pkl")}


def test_what_is_thrown_away_is_told() -> None:
    data = b"cposix\nsystem\n(X\x02\0\0\0idtR0N."
    assert uses(data)["posix.system"].calls == 1


def test_a_function_fetched_by_getattr_is_named() -> None:
    system = Call(Global("builtins", "getattr"), (Global("os", "path"), "system"))
    found = uses(write_pickle([Call(system, ("id",))]))
    assert found["os.path.system"] == CallableUse(
        "os.path.system", 1, "'id'", "executes-code", "data.pkl"
    )
    assert found["builtins.getattr"].arguments == "os.path, 'system'"


def test_the_result_of_a_call_is_described() -> None:
    make = Call(Global("mymodel", "make"), ())
    found = uses(write_pickle([Call(make, (1,)), Call(Call(make, ()), ())]))
    assert found["a result of mymodel.make"].calls == 2
    assert found["a result of a call"].severity == "unknown-callable"


def test_an_import_is_told_too() -> None:
    assert uses(write_pickle([Global("mymodel", "helper")])) == {
        "mymodel.helper": CallableUse("mymodel.helper", 0, "", "unknown-callable", "data.pkl")
    }


class Replaced(Evil):
    """A partial whose state names another function than its arguments do."""

    def __reduce__(self) -> Any:
        return functools.partial, (torch.optim.AdamW,), (*self.call, {}, {})


@pytest.mark.parametrize(
    ("value", "severity"),
    [
        (functools.partial(torch.optim.AdamW, lr=0.1), "ordinary"),
        (functools.partial(json.dumps, indent=1), "unknown-callable"),
        (functools.partial(os.system, "id"), "executes-code"),
        (functools.partial("a".join), "unknown-callable"),
        ([functools.partial(int), functools.partial(os.system)], "executes-code"),
        (Replaced(os.system, "id"), "executes-code"),
        (
            Evil(collections.defaultdict, functools.partial),
            "executes-code",
        ),  # called by who knows whom
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_partial_is_judged_as_what_it_wraps(value: object, severity: str, protocol: int) -> None:
    assert uses(pickle.dumps(value, protocol))["functools.partial"].severity == severity


def test_a_partial_that_is_called_is_told() -> None:
    made = Call(Global("functools", "partial"), (Global("torch", "Size"),))
    found = uses(write_pickle([Call(made, ([1],))]))
    assert {use.name: use.severity for use in found.values()} == {
        "functools.partial": "ordinary",
        "torch.Size": "ordinary",
        "a result of functools.partial": "unknown-callable",
    }


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), ""),
        ((1, 2.5, None, True), "1, 2.5, None, True"),
        ((1, 2, 3, 4, 5), "1, 2, 3, 4, …"),
        (("a\x1b[31m\n", b"\xff"), "'a\\x1b[31m\\n', b'\\xff'"),
        (([1, "a"], (2,)), "[1, 'a'], (2)"),
        (({"a": 1}, [0] * 9), "<dict of 1>, <list of 9>"),
        ((Global("a", "b\x1b"),), "a.b\\x1b"),
        ((Call(Global("a", "b"), ()), PersistentId(("storage", 1))), "a.b(…), <storage>"),
        (("x" * 500,), "'" + "x" * 78 + "…"),
        (([[[[["deep"]]]]],), "[[[<list of 1>]]]"),
    ],
)
def test_the_summary_of_arguments(arguments: tuple[object, ...], text: str) -> None:
    assert summary_of_arguments(Call(Global("f", "g"), arguments)) == text


def test_ordinary_files_have_no_findings(tmp_path: Path) -> None:
    model = nn.Transformer(8, 2, 1, 1, 8, batch_first=True)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    saved = {
        "model": model.state_dict(),
        "whole": model,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "args": argparse.Namespace(lr=0.1, path=pathlib.Path("a")),
        "when": datetime.datetime(2024, 5, 1, 12),
        "numpy": [numpy.float64(2), numpy.arange(3), numpy.int32(4)],
        "counts": collections.Counter("abba"),
        "default": collections.defaultdict(list, a=[1]),
        "types": (torch.float16, torch.device("cpu"), torch.Size([1]), b"x", {1}, 2j),
    }
    for protocol in (2, 4):
        torch.save(saved, tmp_path / "x.pth", pickle_protocol=protocol)
        assert findings(open_checkpoint(str(tmp_path / "x.pth"))) == ()


def test_every_optimizer_of_torch_is_ordinary() -> None:
    kinds = [each for each in vars(torch.optim).values() if isinstance(each, type)]
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds}
    assert names > {"torch.optim.Muon", "torch.optim.adam.Adam", "torch.optim.optimizer.Optimizer"}
    assert {severity_of(name) for name in names} == {"ordinary"}


def test_findings_come_worst_first_and_say_where(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with gone("policy_gone", "class Settings: pass") as module:
        settings_object = module.Settings()
        settings_object.a = 1
        torch.save([settings_object, Evil(eval, "1 + 1")], path)
    found = open_checkpoint(str(path))
    assert findings(found) == (
        CallableUse("builtins.eval", 1, "'1 + 1'", "executes-code", "data.pkl"),
        CallableUse("policy_gone.Settings", 1, "", "unknown-callable", "data.pkl"),
    )
    assert callables_of(found)[:2] == findings(found)


def test_every_pickle_of_a_legacy_file_is_covered(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    keys = pickle.dumps([], 2)
    assert data.endswith(keys)
    bad = b"\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R0]."
    path.write_bytes(data.removesuffix(keys) + bad)
    (found,) = findings(open_checkpoint(str(path)))
    assert (found.name, found.where) == ("posix.system", "storage keys")


def test_a_graph_module_executes_its_code(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(fx.symbolic_trace(nn.Linear(2, 2)), path)
    found = {use.name: use.severity for use in findings(open_checkpoint(str(path)))}
    assert found["torch.fx.graph_module.reduce_graph_module"] == "executes-code"


def test_nothing_is_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    torch.save([Evil(subprocess.call, ["touch", str(victim)])], tmp_path / "x.pth")
    found = open_checkpoint(str(tmp_path / "x.pth"))
    assert [use.name for use in findings(found)] == ["subprocess.call"]
    assert not victim.exists()
