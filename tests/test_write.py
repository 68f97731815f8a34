"""Round trips: what modtool writes is what torch and safetensors read, bit for bit."""

import collections
import json
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch.utils.serialization import config

from modtool.formats import open_checkpoint
from modtool.live.compute import compute
from modtool.live.state import checkpoint_of
from modtool.plan import (
    Form,
    Plan,
    Rule,
    cast,
    drop_optimizer,
    freeze,
    keep,
    map_location,
    plan_conversion,
    plan_rewrite,
    reinit,
    set_value,
    shrink,
    tied,
    unfreeze,
)
from modtool.records import DTYPES
from modtool.write import write

Saved = dict[str, torch.Tensor]


def numbers(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Random bits that are valid elements of the type."""
    generator = torch.Generator().manual_seed(0)
    size = dtype.itemsize
    count = int(torch.tensor(shape).prod())
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    raw = torch.randint(0, 256, (count * size,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).view(shape)


def bits(tensor: torch.Tensor) -> bytes:
    """The elements in row-major order."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert bits(found[name]) == bits(tensor), name


def check_archive(path: Path, stem: str = "") -> None:
    """What every torch file that modtool writes has to pass; a copy keeps its folder's name."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = [name.partition("/")[2] for name in archive.namelist()]
        roots = {name.partition("/")[0] for name in archive.namelist()}
    assert roots == {stem or path.stem}
    assert names[:4] == ["data.pkl", ".format_version", ".storage_alignment", "byteorder"]
    assert names[-2:] == ["version", ".data/serialization_id"]


def load(path: Path) -> Saved:
    """What `torch.load` finds, the same in each of its ways of loading."""
    check_archive(path)
    plain = torch.load(path, weights_only=True)
    mapped = torch.load(path, weights_only=True, mmap=True)
    with config.patch({"load.calculate_storage_offsets": True}):  # type: ignore[attr-defined]
        calculated = torch.load(path, weights_only=True, mmap=True)
    assert isinstance(plain, dict)
    model = plain.get("model_state_dict", plain)
    for other in (mapped, calculated):
        same(other.get("model_state_dict", other), model)
    return plain


def converted(saved: object, folder: Path, to: Form, *edits: Callable[[Plan], Plan]) -> Path:
    source = folder / "source.pth"
    if isinstance(saved, dict) and to == "safetensors" and not saved:
        raise AssertionError
    torch.save(saved, source)
    return rewritten(source, to, *edits)


def rewritten(source: Path, to: Form, *edits: Callable[[Plan], Plan]) -> Path:
    suffix = ".safetensors" if to == "safetensors" else ".pth"
    target = source.parent / f"target{suffix}"
    plan = plan_conversion(open_checkpoint(str(source)), to=to)
    for edit in edits:
        plan = edit(plan)
    assert write(plan, str(target), compute=compute) == (str(target),)
    assert sorted(os.listdir(source.parent)) == sorted([source.name, target.name])
    return target


TORCH_DTYPES = [
    name
    for name, dtype in DTYPES.items()
    if not name.startswith(("q", "bits", "float4"))
    and not (name.lstrip("uint") in "1234567" and name.lstrip("uint"))
]
SAFE_DTYPES = [name for name in TORCH_DTYPES if DTYPES[name].safetensors]


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_every_dtype_to_a_state_dict(tmp_path: Path, name: str) -> None:
    dtype = getattr(torch, name)
    saved = {"x": numbers(dtype, 3, 5), "empty": numbers(dtype, 0), "one": numbers(dtype, 1)}
    same(load(converted(saved, tmp_path, "state_dict")), saved)


@pytest.mark.parametrize("name", SAFE_DTYPES)
def test_every_dtype_to_safetensors_and_back(tmp_path: Path, name: str) -> None:
    dtype = getattr(torch, name)
    saved = {"one": numbers(dtype, 1), "x": numbers(dtype, 3, 5), "empty": numbers(dtype, 2, 0)}
    safe = converted(saved, tmp_path, "safetensors")
    found = safetensors.torch.load_file(safe)
    same(dict(sorted(found.items())), dict(sorted(saved.items())))
    folder = tmp_path / "back"
    folder.mkdir()
    back = safe.rename(folder / "source.safetensors")
    again = load(rewritten(back, "state_dict"))
    same(dict(sorted(again.items())), dict(sorted(saved.items())))


def shapes() -> Saved:
    base = torch.arange(24.0).view(4, 6)
    column = torch.arange(5.0)
    images = torch.arange(96.0).view(2, 3, 4, 4)
    return {
        "scalar": torch.tensor(3.5),
        "one": torch.tensor([7]),
        "empty": torch.zeros(0, 3),
        "base": base,
        "transposed": base.t(),
        "rows": base[1:3],
        "columns": base[:, 2:4],
        "step": base[::2, ::3],
        "broadcast": column.expand(4, 5),
        "broadcast_all": torch.tensor(2.0).expand(3, 3),
        "permuted": torch.arange(120.0).view(2, 3, 4, 5).permute(3, 1, 0, 2),
        "channels_last": images.to(memory_format=torch.channels_last),
        "tied": base,
        "view": base.view(-1),
    }


@pytest.mark.parametrize("clone", [False, True])
@pytest.mark.parametrize("shrunk", [False, True])
def test_shapes_and_strides(tmp_path: Path, clone: bool, shrunk: bool) -> None:
    edits = [lambda plan: tied(plan, "clone")] if clone else []
    edits += [shrink] if shrunk else []
    found = load(converted(shapes(), tmp_path, "state_dict", *edits))
    same(found, shapes())
    shared = found["tied"].data_ptr() == found["base"].data_ptr() == found["transposed"].data_ptr()
    assert shared is not clone


def test_strides_are_kept(tmp_path: Path) -> None:
    found = load(converted(shapes(), tmp_path, "state_dict"))
    assert {name: tensor.stride() for name, tensor in found.items()} == {
        name: tensor.stride() for name, tensor in shapes().items()
    }


def test_shapes_to_safetensors(tmp_path: Path) -> None:
    path = converted(shapes(), tmp_path, "safetensors")
    found = safetensors.torch.load_file(path)
    expected = shapes()
    del expected["tied"]
    same(dict(sorted(found.items())), dict(sorted(expected.items())))
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "tied": "base"}
        assert torch.equal(file.get_slice("columns")[1:], expected["columns"][1:])


def test_safetensors_is_ordered_as_the_library_orders_it(tmp_path: Path) -> None:
    saved = {
        "b": torch.zeros(3, dtype=torch.uint8),
        "z": torch.zeros(1, dtype=torch.float64),
        "a": torch.zeros(2),
        "c": torch.zeros(2, dtype=torch.float16),
    }
    path = converted(saved, tmp_path, "safetensors")
    expected = tmp_path / "expected.safetensors"
    safetensors.torch.save_file(saved, expected, metadata={"format": "pt"})
    assert path.read_bytes() == expected.read_bytes()


def header_and_data(path: Path) -> tuple[object, bytes]:
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def test_save_model_and_load_model_agree_about_ties(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(5, 3)
            self.body = torch.nn.LSTM(3, 3)
            self.head = torch.nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight

    model, fresh = Tied(), Tied()
    path = converted(model.state_dict(), tmp_path, "safetensors")
    expected = tmp_path / "expected.safetensors"
    safetensors.torch.save_model(model, str(expected), metadata={"format": "pt"})
    assert header_and_data(path) == header_and_data(expected)
    missing, unexpected = safetensors.torch.load_model(fresh, path)
    assert not missing
    assert not unexpected
    same(fresh.state_dict(), model.state_dict())


def test_the_bytes_are_those_that_torch_writes(tmp_path: Path) -> None:
    saved = collections.OrderedDict(a=torch.arange(100.0), b=torch.ones(3, 3).half())
    path = converted(saved, tmp_path, "state_dict")
    expected = tmp_path / "expected" / "target.pth"
    expected.parent.mkdir()
    torch.save(saved, expected)
    # All but the last record, whose text is a hash of torch's own.
    end = path.read_bytes().index(b"version") - 40
    assert path.read_bytes()[:end] == expected.read_bytes()[:end]
    assert path.stat().st_size == expected.stat().st_size


def test_an_oversized_storage_is_kept_or_cut_down(tmp_path: Path) -> None:
    base = torch.arange(10_000.0)
    saved = {"part": base[100:200], "other": base[150:300], "far": base[9000:9001]}
    whole = converted(saved, tmp_path, "state_dict")
    assert whole.stat().st_size > 40_000
    whole.unlink()
    small = rewritten(tmp_path / "source.pth", "state_dict", shrink)
    assert small.stat().st_size < 4_000
    found = load(small)
    same(found, saved)
    assert found["part"].untyped_storage().nbytes() == 800
    assert found["part"][50].data_ptr() == found["other"].data_ptr()


def test_an_lstm_shares_one_storage_without_ties(tmp_path: Path) -> None:
    state = torch.nn.LSTM(3, 4, 2).state_dict()
    flat = torch.cat([tensor.reshape(-1) for tensor in state.values()])
    views, start = {}, 0
    for name, tensor in state.items():
        views[name] = flat[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
    found = load(converted(views, tmp_path, "state_dict", shrink))
    same(found, views)
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == 1


def test_conjugate_and_negative_views(tmp_path: Path) -> None:
    values = torch.randn(3, 4, dtype=torch.complex64)
    negative = torch.randn(3, 4, dtype=torch.complex64).conj().imag
    saved = {"plain": values, "conj": values.conj(), "negative": negative}
    found = load(converted(saved, tmp_path, "state_dict"))
    same(found, saved)
    assert found["conj"].is_conj()
    assert found["negative"].is_neg()
    (tmp_path / "target.pth").unlink()
    safe = safetensors.torch.load_file(rewritten(tmp_path / "source.pth", "safetensors"))
    for name, tensor in saved.items():
        assert torch.equal(safe[name], tensor.resolve_conj().resolve_neg()), name


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float64", "float8_e4m3fn"])
@pytest.mark.parametrize("to", ["state_dict", "safetensors"])
def test_casts(tmp_path: Path, name: str, to: Form) -> None:
    dtype = getattr(torch, name)
    base = torch.randn(64, 48)
    saved = {
        "base": base,
        "large": torch.randn(1500, 1500),
        "wide": torch.randn(2, 1_500_000).t(),
        "scalar": torch.tensor(1.5),
        "steps": torch.arange(5),
        "view": base[3:, ::2],
    }
    expected = {key: t.to(dtype) if t.is_floating_point() else t for key, t in saved.items()}
    path = converted(saved, tmp_path, to, lambda plan: cast(plan, name))
    found = safetensors.torch.load_file(path) if to == "safetensors" else load(path)
    same(dict(sorted(found.items())), dict(sorted(expected.items())))
    if to == "state_dict":
        assert found["view"].data_ptr() == found["base"][3:].data_ptr()
        assert found["wide"].stride() == saved["wide"].stride()


def test_a_cast_of_some(tmp_path: Path) -> None:
    base = torch.randn(4, 4)
    saved = {"a": base, "b": base, "c": base[:2], "norm.weight": torch.ones(3)}
    path = converted(saved, tmp_path, "state_dict", lambda p: cast(p, "bf16", {"norm": "fp32"}))
    found = load(path)
    assert [tensor.dtype for tensor in found.values()] == [torch.bfloat16] * 3 + [torch.float32]
    assert found["a"].data_ptr() == found["b"].data_ptr() == found["c"].data_ptr()


def test_a_big_endian_file(tmp_path: Path) -> None:
    saved = {
        "x": torch.arange(10, dtype=torch.int32),
        "y": torch.randn(3, 4, dtype=torch.float64).t(),
        "z": torch.randn(5, dtype=torch.complex64),
        "w": torch.randn(7).bfloat16(),
        "flag": torch.tensor([True, False]),
    }
    source = tmp_path / "source.pth"
    torch.save(saved, source)
    data = bytearray(source.read_bytes())
    with zipfile.ZipFile(source) as archive:
        infos = {info.filename: info for info in archive.infolist()}
    for index, size in enumerate((4, 8, 4, 2, 1)):
        info = infos[f"source/data/{index}"]
        name, extra = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
        start = info.header_offset + 30 + name + extra
        part = data[start : start + info.file_size]
        data[start : start + info.file_size] = b"".join(
            part[at : at + size][::-1] for at in range(0, len(part), size)
        )
    at = data.index(b"little")
    data[at : at + 6] = b"big   "
    # The record has to be three bytes long; a new archive says so.
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as made:
        for label, info in infos.items():
            name, extra = struct.unpack(
                "<HH", data[info.header_offset + 26 : info.header_offset + 30]
            )
            start = info.header_offset + 30 + name + extra
            text = bytes(data[start : start + info.file_size])
            made.writestr(label, text.strip() if label.endswith("byteorder") else text)
    os.replace(tmp_path / "made.zip", source)
    same(torch.load(source, weights_only=True), saved)
    same(load(rewritten(source, "state_dict")), saved)
    (tmp_path / "target.pth").unlink()
    safe = safetensors.torch.load_file(rewritten(source, "safetensors"))
    same(dict(sorted(safe.items())), dict(sorted(saved.items())))
    (tmp_path / "target.safetensors").unlink()
    found = load(rewritten(source, "state_dict", lambda plan: cast(plan, "float32")))
    assert torch.equal(found["y"], saved["y"].float())


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sparse_and_quantized_tensors_stay_what_they_are(tmp_path: Path) -> None:
    dense = torch.randn(6, 6).relu()
    saved = {
        "coo": dense.to_sparse(),
        "csr": dense.to_sparse_csr(),
        "plain": dense,
    }
    found = load_plain(converted(saved, tmp_path, "state_dict"))
    assert found["coo"].layout == torch.sparse_coo
    assert torch.equal(found["coo"].to_dense(), dense)
    assert torch.equal(found["csr"].to_dense(), dense)
    assert torch.equal(found["plain"], dense)


def load_plain(path: Path) -> Saved:
    check_archive(path)
    found = torch.load(path, weights_only=True)
    assert isinstance(found, dict)
    return found


def training(model: torch.nn.Module) -> dict[str, object]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "loss": 0.25,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "history": [1.0, (2, None)],
    }


def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def test_a_checkpoint_keeps_everything(tmp_path: Path) -> None:
    saved = training(net())
    found = load_plain(converted(saved, tmp_path, "checkpoint"))
    assert list(found) == list(saved)
    assert found["history"] == saved["history"]
    assert found["epoch"] == 3
    model, fresh = net(), net()
    model.load_state_dict(found["model_state_dict"])  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(fresh.parameters())
    optimizer.load_state_dict(found["optimizer_state_dict"])  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["lr"] == 0.1
    before = saved["optimizer_state_dict"]
    assert isinstance(before, dict)
    for index, state in before["state"].items():
        same(optimizer.state[list(fresh.parameters())[index]], state)


def test_the_metadata_of_a_state_dict_survives(tmp_path: Path) -> None:
    state = net().state_dict()
    found = load_plain(converted(state, tmp_path, "state_dict"))
    assert isinstance(found, collections.OrderedDict)
    assert found._metadata == state._metadata  # type: ignore[attr-defined]


def test_a_checkpoint_to_its_model(tmp_path: Path) -> None:
    saved = training(net())
    path = converted(saved, tmp_path, "state_dict")
    same(load(path), saved["model_state_dict"])  # type: ignore[arg-type]
    plan = plan_conversion(open_checkpoint(str(tmp_path / "source.pth")), to="state_dict")
    assert {item.name for item in plan.dropped} >= {"epoch", "loss", "optimizer_state_dict"}


def test_edits_of_a_checkpoint(tmp_path: Path) -> None:
    path = converted(
        training(net()),
        tmp_path,
        "checkpoint",
        drop_optimizer,
        lambda plan: set_value(plan, "epoch", 7),
        lambda plan: keep(plan, ["0", "1.weight"]),
        lambda plan: freeze(plan, ["0"]),
    )
    found = load_plain(path)
    assert list(found) == ["epoch", "loss", "model_state_dict", "history", "requires_grad"]
    assert found["epoch"] == 7
    assert list(found["model_state_dict"]) == ["0.weight", "0.bias", "1.weight"]
    assert found["requires_grad"] == {"0.weight": False, "0.bias": False, "1.weight": True}
    again = open_checkpoint(str(path))
    assert [tensor.requires_grad for tensor in again.tensors] == [False, False, True]
    folder = tmp_path / "safe"
    folder.mkdir()
    safe = rewritten(path.rename(folder / "source.pth"), "safetensors")
    with safetensors.safe_open(safe, "pt") as file:
        assert file.metadata()["modtool.requires_grad"] == (
            '{"0.weight":false,"0.bias":false,"1.weight":true}'
        )


def test_a_state_dict_becomes_a_checkpoint(tmp_path: Path) -> None:
    state = net().state_dict()
    path = converted(state, tmp_path, "checkpoint", lambda plan: set_value(plan, "epoch", 3))
    found = load(path)
    assert list(found) == ["model_state_dict", "epoch"]
    same(found["model_state_dict"], state)  # type: ignore[arg-type]


def test_locations_are_moved(tmp_path: Path) -> None:
    path = converted(
        {"a": torch.ones(2)}, tmp_path, "state_dict", lambda plan: map_location(plan, "cuda:3")
    )
    assert open_checkpoint(str(path)).tensors[0].location == "cuda:3"
    folder = tmp_path / "moved"
    folder.mkdir()
    moved = path.rename(folder / "source.pth")
    back = rewritten(moved, "state_dict", lambda plan: map_location(plan, {"cuda:3": "cpu"}))
    same(load(back), {"a": torch.ones(2)})


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.second = torch.nn.Linear(4, 3, bias=False)
        self.third = torch.nn.Linear(4, 3, bias=False)
        self.third.weight = self.second.weight
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.config = {"name": "model", "sizes": (3, 4)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.first(x))
        total: torch.Tensor = self.second(hidden) + self.third(hidden)
        return total


def save_model(path: Path) -> Model:
    torch.manual_seed(0)
    model = Model()
    torch.save(model, path)
    return model


def test_a_full_model_to_each_form(tmp_path: Path) -> None:
    model = save_model(tmp_path / "source.pth")
    path = rewritten(tmp_path / "source.pth", "state_dict")
    found = load(path)
    same(found, model.state_dict())
    assert found["second.weight"].data_ptr() == found["third.weight"].data_ptr()
    assert not found["first.weight"].requires_grad
    path.unlink()
    checkpoint = load_plain(rewritten(tmp_path / "source.pth", "checkpoint"))
    same(checkpoint["model_state_dict"], model.state_dict())  # type: ignore[arg-type]
    plan = plan_conversion(open_checkpoint(str(tmp_path / "source.pth")), to="state_dict")
    assert [item.name for item in plan.dropped] == ["hidden", "modules"]


def written_back(
    source: Path,
    *edits: Callable[[Plan], Plan],
    name: str = "back.pth",
    copy: bool = False,
) -> Path:
    plan = plan_rewrite(open_checkpoint(str(source)))
    for edit in edits:
        plan = edit(plan)
    target = source.parent / name
    write(plan, str(target), compute=compute)
    check_archive(target, "source" if copy else "")
    return target


def test_a_full_model_frozen_inside_its_file(tmp_path: Path) -> None:
    model = save_model(tmp_path / "source.pth")
    frozen = written_back(
        tmp_path / "source.pth", lambda plan: freeze(plan, ["first", "third"]), copy=True
    )
    found = torch.load(frozen, weights_only=False)
    assert isinstance(found, Model)
    flags = {name: p.requires_grad for name, p in found.named_parameters()}
    assert flags == {
        "first.weight": False,
        "first.bias": False,
        "norm.weight": True,
        "norm.bias": True,
        "second.weight": False,
    }
    assert found.third.weight is found.second.weight
    assert found.config == model.config
    same(found.state_dict(), model.state_dict())
    assert torch.equal(found.get_buffer("hidden"), torch.ones(2))
    found(torch.ones(2, 3))


def test_freeze_then_unfreeze_is_identity(tmp_path: Path) -> None:
    save_model(tmp_path / "source.pth")
    source = (tmp_path / "source.pth").read_bytes()
    frozen = written_back(tmp_path / "source.pth", lambda plan: freeze(plan, ["*"]), copy=True)
    again = written_back(frozen, lambda plan: unfreeze(plan, ["*"]), name="again.pth", copy=True)
    assert again.read_bytes() == source
    assert frozen.read_bytes() != source


def test_a_full_model_frozen_and_moved_is_written_anew(tmp_path: Path) -> None:
    save_model(tmp_path / "source.pth")
    moved = written_back(
        tmp_path / "source.pth",
        lambda plan: freeze(plan, ["first"]),
        lambda plan: map_location(plan, "cuda:1"),
    )
    found = torch.load(moved, weights_only=False, map_location="cpu")
    flags = [parameter.requires_grad for parameter in found.parameters()]
    assert flags == [False, False, True, True, True]


def test_a_full_model_moved_and_cast(tmp_path: Path) -> None:
    model = save_model(tmp_path / "source.pth")
    moved = written_back(
        tmp_path / "source.pth",
        lambda plan: map_location(plan, "cpu"),
        lambda plan: cast(plan, None, {"second": "bfloat16"}),
    )
    found = torch.load(moved, weights_only=False)
    assert isinstance(found.second.weight, torch.nn.Parameter)
    assert found.second.weight.dtype == torch.bfloat16
    assert torch.equal(found.first.weight, model.first.weight)


def test_a_live_model_to_each_form(tmp_path: Path) -> None:
    model = Model().eval()
    checkpoint = checkpoint_of(model, "model.py")
    target = tmp_path / "state.pth"
    write(plan_conversion(checkpoint, to="state_dict"), str(target), compute=compute)
    same(load(target), model.state_dict())
    start = tmp_path / "start.pth"
    plan = freeze(plan_conversion(checkpoint, to="checkpoint"), ["type:Linear", "!first.bias"])
    write(plan, str(start), compute=compute)
    found = load(start)
    same(found["model_state_dict"], model.state_dict())  # type: ignore[arg-type]
    assert found["requires_grad"] == {
        "first.weight": False,
        "first.bias": True,
        "norm.weight": True,
        "norm.bias": True,
        "second.weight": False,
        "third.weight": False,
    }


def test_reinit_touches_no_other_bytes(tmp_path: Path) -> None:
    model = save_model(tmp_path / "source.pth")
    rules = [Rule(("second",), "constant", {"val": 0.5}), Rule(("first.bias",), "ones")]
    path = written_back(tmp_path / "source.pth", lambda plan: reinit(plan, rules, 0))
    found = torch.load(path, weights_only=False)
    assert found.third.weight is found.second.weight
    assert isinstance(found.second.weight, torch.nn.Parameter)
    expected = model.state_dict()
    expected["second.weight"] = expected["third.weight"] = torch.full((3, 4), 0.5)
    expected["first.bias"] = torch.ones(4)
    same(found.state_dict(), expected)
    path.unlink()
    safe = rewritten(tmp_path / "source.pth", "safetensors", lambda plan: reinit(plan, rules, 0))
    del expected["third.weight"]
    same(dict(sorted(safetensors.torch.load_file(safe).items())), dict(sorted(expected.items())))
