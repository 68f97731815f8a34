"""torch.package archives, written by torch itself, with a package that is gone afterwards."""

import importlib
import os
import pickle
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import fx, nn
from torch.package import package_exporter
from torch.package.package_exporter import PackageExporter

from modtool.errors import CorruptFileError, UnknownFormatError
from modtool.formats import open_checkpoint
from modtool.pickles.callables import findings, weights_only_of
from modtool.records import CallableUse, Section
from tests.formats.compare import assert_same, persistent

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*TypedStorage.*:UserWarning"),
]

SOURCE = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("shift", torch.ones(2))

    def forward(self, x):
        return self.fc(x) + self.shift
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "packaged_net.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("packaged_net")
    del sys.modules["packaged_net"]


def exporter(path: Path) -> PackageExporter:
    made = PackageExporter(str(path))
    made.intern("packaged_net")
    made.extern(["torch.**", "numpy.**"])
    return made


def test_one_model_is_a_full_model(tmp_path: Path, package: ModuleType) -> None:
    path = tmp_path / "x.pt"
    model = package.Net().eval()
    with exporter(path) as made:
        made.save_pickle("model", "model.pkl", model)
        made.save_text("model", "notes.txt", "hello")
    found = open_checkpoint(str(path))
    assert (found.format, found.kind, found.sections) == ("torch-package", "full_model", ())
    assert_same(persistent(found), model.state_dict())
    assert [(node.path, node.class_name, node.training) for node in found.modules] == [
        ("", "packaged_net.Net", False),
        ("fc", "torch.nn.modules.linear.Linear", False),
    ]
    assert found.sources == {"packaged_net.py": SOURCE}
    assert found.metadata["resources"] == "model/notes.txt"
    assert "torch.nn.modules.linear" in found.metadata["extern_modules"].splitlines()


def test_several_pickles_are_sections_and_share_their_storages(
    tmp_path: Path, package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_exporter, "_gate_torchscript_serialization", False)
    path = tmp_path / "x.pt"
    model = package.Net()
    with exporter(path) as made:
        made.save_pickle("model", "model.pkl", model)
        made.save_pickle("model", "state.pkl", model.state_dict())
        made.save_pickle("model", "config.pkl", {"width": 3})
        made.save_pickle("script", "script.pkl", torch.jit.script(model))
    found = open_checkpoint(str(path))
    assert found.kind == "checkpoint"
    assert found.sections == (
        Section("model.model", "model"),
        Section("model.state", "other"),
        Section("ts_code.0", "other"),
    )
    for section in found.sections:
        part = [tensor for tensor in found.tensors if tensor.section == section.name]
        if section.name == "ts_code.0":  # TorchScript lists attributes in its own order
            part.sort(key=lambda tensor: list(model.state_dict()).index(tensor.name))
        assert_same(part, model.state_dict())
    assert len({tensor.storage for tensor in found.tensors}) == 3
    assert found.values["model/config.pkl"] == {"width": 3}
    assert set(found.pickles) == {
        "model/model.pkl",
        "model/state.pkl",
        "model/config.pkl",
        "script/script.pkl",
        ".data/ts_code/0/data.pkl",
        ".data/ts_code/0/constants.pkl",
    }


def test_a_pickle_is_known_by_what_it_holds(tmp_path: Path) -> None:
    """As in the packages of silero, whose pickles have names without an ending."""
    path = tmp_path / "x.pt"
    model = nn.Linear(3, 2)
    with exporter(path) as made:
        made.save_pickle("model", "model", model)
        made.save_binary("model", "vocabulary.bin", b"\x80\x00.")
        made.extern(["os", "posix"])
        made.save_binary("model", "other.bin", pickle.dumps(Caller()))
    found = open_checkpoint(str(path))
    assert found.kind == "full_model"
    assert_same(persistent(found), model.state_dict())
    assert found.metadata["resources"] == "model/vocabulary.bin"
    assert [use.name for use in findings(found)] == ["posix.system"]


class Caller:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("true",)


def test_two_scripts_are_both_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_exporter, "_gate_torchscript_serialization", False)
    path = tmp_path / "x.pt"
    with exporter(path) as made:
        for name, width in (("encoder", 3), ("decoder", 5)):
            script = torch.jit.script(nn.Sequential(nn.Linear(width, 2)))
            made.save_pickle("script", f"{name}.pkl", script)
    found = open_checkpoint(str(path))
    assert found.sections == (Section("ts_code.0", "model"), Section("ts_code.1", "model"))
    assert sum(tensor.numel for tensor in found.model_tensors) == 8 + 12


def test_a_script_inside_a_pickled_module_is_what_the_module_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_exporter, "_gate_torchscript_serialization", False)
    path = tmp_path / "x.pt"
    with exporter(path) as made:
        for name, width in (("model", 5), ("best_model", 7)):
            script = torch.jit.script(nn.Linear(2, width))
            made.save_pickle("net", f"{name}.pkl", nn.Sequential(nn.Linear(2, 2), script))
    found = open_checkpoint(str(path))
    assert {section.name: section.role for section in found.sections} == {
        "net.model": "model",
        "net.best_model": "other",
        "ts_code.0": "model",
        "ts_code.1": "other",
    }
    assert sum(tensor.numel for tensor in found.model_tensors) == 6 + 15


def test_pickles_are_judged_by_name_and_contents_as_sections_are(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    net = nn.Linear(3, 2)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(3)).sum().backward()
    adam.step()
    checkpoint = {"net": net.state_dict(), "optimizer": adam.state_dict(), "epoch": 3}
    with exporter(path) as made:
        made.save_pickle("gan", "generator.pkl", nn.Linear(4, 4))
        made.save_pickle("gan", "discriminator.pkl", nn.Linear(4, 1).state_dict())
        made.save_pickle("gan", "ema.pkl", nn.Linear(4, 4).state_dict())
        made.save_pickle("gan", "last.pkl", checkpoint)
    found = open_checkpoint(str(path))
    assert {section.name: section.role for section in found.sections} == {
        "gan.generator": "model",
        "gan.discriminator": "model",
        "gan.ema": "ema",
        "gan.last.net": "other",
        "gan.last.optimizer": "optimizer",
    }
    assert [tensor.name for tensor in found.tensors if tensor.section == "gan.last.net"] == [
        "weight",
        "bias",
    ]
    values = found.values["gan/last.pkl"]
    assert isinstance(values, dict)
    assert (values["epoch"], values["optimizer.param_groups.0.lr"]) == (3, 0.001)


def test_two_pickles_of_one_path_are_two_sections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_exporter, "_gate_torchscript_serialization", False)
    path = tmp_path / "x.pt"
    inner = nn.Sequential(nn.Linear(2, 2), torch.jit.script(nn.Linear(2, 5)))
    with exporter(path) as made:
        made.save_pickle("a", "model.pkl", nn.Linear(3, 2))
        made.save_pickle("a", "model", nn.Linear(4, 2))
        made.save_pickle("ts_code", "0.pkl", inner)
    found = open_checkpoint(str(path))
    counts = {
        section.name: sum(each.numel for each in found.tensors if each.section == section.name)
        for section in found.sections
    }
    assert counts == {"a.model": 8, "a.model (2)": 10, "ts_code.0": 6, "ts_code.0 (2)": 15}


def test_a_graph_module(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    graph = fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    with exporter(path) as made:
        made.save_pickle("model", "model.pkl", graph)
    found = open_checkpoint(str(path))
    assert found.kind == "full_model"
    assert_same(persistent(found), graph.state_dict())


def test_loading_runs_the_code_inside(tmp_path: Path, package: ModuleType) -> None:
    path = tmp_path / "x.pt"
    with exporter(path) as made:
        made.save_pickle("model", "model.pkl", package.Net())
    found = open_checkpoint(str(path))
    told = {use.name: use for use in findings(found)}
    assert told["packaged_net"] == CallableUse(
        "packaged_net",
        0,
        "the package's own Python code runs when it is imported",
        "executes-code",
        "packaged_net.py",
    )
    assert told["packaged_net.Net"].severity == "unknown-callable"
    verdict = weights_only_of(found)
    assert verdict is not None
    assert (verdict.accepted, verdict.line) == (False, "")


def test_an_archive_of_something_else_is_named(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "hello")
    with pytest.raises(UnknownFormatError, match="a zip archive"):
        open_checkpoint(str(path))


def test_a_member_outside_of_the_root_is_refused(tmp_path: Path) -> None:
    """Found by fuzzing. torch, too, wants all members in the folder of the first one."""
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x/.data/extern_modules", "torch")
        made.writestr("y/model.pkl", pickle.dumps(1, 2))
    with pytest.raises(CorruptFileError, match=r"'y/model\.pkl' lies outside of the folder"):
        open_checkpoint(str(path))
