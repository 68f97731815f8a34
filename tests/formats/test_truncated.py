"""Files that end too early: every cut shows the header or says why not, and saves what is whole."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from modtool.errors import ModtoolError, TruncatedFileError
from modtool.formats import open_checkpoint
from modtool.formats.truncated import is_lost
from modtool.records import FileRange
from tests.conftest import Ran

Modtool = Callable[..., Ran]
STATE = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "a.bias": torch.tensor([7.0, 8.0]),
    "empty": torch.zeros(0),
    "b.steps": torch.tensor(9),
}


def save_zip(path: Path) -> None:
    torch.save(STATE, path)


def save_without_checksums(path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, path)
    finally:
        torch.serialization.set_crc32_options(True)


def save_legacy(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)


def save_safetensors(path: Path) -> None:
    save_file(STATE, path)


SAVES = (save_zip, save_without_checksums, save_legacy, save_safetensors)


def ends_in(path: Path) -> dict[str, int]:
    """Where in the file each tensor ends; 0 for one without elements."""
    ends = {}
    for tensor in open_checkpoint(str(path)).tensors:
        assert tensor.storage is not None
        place = tensor.storage.data
        assert isinstance(place, FileRange)
        ends[tensor.name] = place.offset + place.length if place.length else 0
    return ends


@pytest.mark.parametrize("save", SAVES)
def test_every_cut(save: Callable[[Path], None], tmp_path: Path) -> None:
    path, cut = tmp_path / "whole", tmp_path / "cut"
    save(path)
    data = path.read_bytes()
    whole = {tensor.name: tensor for tensor in open_checkpoint(str(path)).tensors}
    ends = ends_in(path)
    shown = 0
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        try:
            found = open_checkpoint(str(cut), truncated=True)
        except ModtoolError:
            assert not shown  # once the header is there, every longer piece shows it
            continue
        shown += 1
        assert [tensor.name for tensor in found.tensors] == list(whole)
        assert [tensor.shape for tensor in found.tensors] == [t.shape for t in whole.values()]
        assert {tensor.name for tensor in found.tensors if not is_lost(tensor.storage)} == {
            name for name, end in ends.items() if end <= length
        }
        assert [note.code for note in found.notes] == ["truncated"]
        with pytest.raises(TruncatedFileError, match="truncated"):
            open_checkpoint(str(cut))
    assert shown >= 40  # the tensors alone have 40 bytes


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_salvage(
    save: Callable[[Path], None], suffix: str, modtool: Modtool, tmp_path: Path
) -> None:
    save(tmp_path / "whole")
    ends = ends_in(tmp_path / "whole")
    length = sorted(ends.values())[-2]
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:length])
    lost = [name for name, end in ends.items() if end > length]
    assert len(lost) == 1
    ran = modtool("convert", "cut", "--salvage", "-o", f"rest.{suffix}", "--verify", "--json")
    assert ran.code == 1
    found = json.loads(ran.out)
    assert found["dropped"] == [{"name": lost[0], "why": "lost: its bytes are not in the file"}]
    load = load_file if suffix == "safetensors" else torch.load
    rest = load(tmp_path / f"rest.{suffix}")
    assert rest.keys() == STATE.keys() - set(lost)
    assert all(torch.equal(rest[name], STATE[name]) for name in rest)


def test_without_salvage_nothing_is_written(modtool: Modtool, tmp_path: Path) -> None:
    save_zip(tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-100])
    for command in ("convert cut.pth -o x.pth", "freeze cut.pth a -o x.pth", "check cut.pth"):
        ran = modtool(*command.split())
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == (
            "error: cut.pth: truncated: a zip archive without its central directory\n"
            "  download or save it again; `modtool convert --salvage` writes the tensors that are "
            "whole, where any is\n"
        )
    assert not (tmp_path / "x.pth").exists()


def test_bytes_that_do_not_give_their_checksum(modtool: Modtool, tmp_path: Path) -> None:
    save_zip(tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    weight = STATE["a.weight"].numpy().tobytes()
    (tmp_path / "a.pth").write_bytes(data.replace(weight, weight[:-1] + b"\x7f"))
    ran = modtool("convert", "a.pth", "--salvage", "-o", "b.pth")
    assert ran.code == 1
    assert ran.out.startswith(
        "left out a.weight: damaged: its bytes do not give the checksum that was saved with them\n"
    )
    assert torch.load(tmp_path / "b.pth").keys() == STATE.keys() - {"a.weight"}


def save_sparse(path: Path) -> bytes:
    torch.save({"sparse": torch.eye(9).to_sparse(), "whole": torch.ones(3)}, path)
    return torch.ones(9).numpy().tobytes()


def save_view(path: Path) -> bytes:
    base = torch.arange(60.0)
    torch.save({"view": base.reshape(6, 10)[1:, 2:4], "whole": torch.ones(3)}, path)
    return base.numpy().tobytes()


def save_blocks(path: Path) -> bytes:
    blocked = torch.arange(60.0)
    save_distributed({"blocked": blocked, "whole": torch.ones(3)}, checkpoint_id=path, no_dist=True)
    return blocked.numpy().tobytes()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize(
    ("save", "name"), [(save_sparse, "sparse"), (save_view, "view"), (save_blocks, "blocked")]
)
@pytest.mark.parametrize("output", ["new.safetensors", "new.pth", "set/"])
def test_verify_compares_the_source_with_its_checksums(
    save: Callable[[Path], bytes], name: str, output: str, modtool: Modtool, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    stored = save(source)
    file = source / "__0_0.distcp" if source.is_dir() else source
    file.write_bytes(file.read_bytes().replace(stored, b"damaged!" + stored[8:]))
    drop = ("--drop", "sparse") if name == "sparse" and output != "new.pth" else ()
    ran = modtool("convert", "source", "-o", output, "--verify", *drop)
    if drop:
        assert ran.code == 0  # what is damaged was not asked for
        return
    assert (ran.code, ran.out) == (2, "")
    place = "source/__0_0.distcp" if source.is_dir() else "source"
    assert ran.err == (
        f"error: {place}: the bytes of {name} do not give the checksum that was saved with them; "
        "nothing was written\n"
        "  download or save it again; --salvage leaves out what is damaged, and without --verify "
        "it is copied as it is\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    ran = modtool("convert", "source", "-o", output, "--verify", "--salvage")
    assert ran.code == 1
    assert ran.out.splitlines()[:2] == [
        f"left out {name}: damaged: its bytes do not give the checksum that was saved with them",
        "read back and compared: all 1 tensors are as they should be",
    ]


def test_salvage_of_what_is_whole_loses_nothing(modtool: Modtool, tmp_path: Path) -> None:
    save_zip(tmp_path / "a.pth")
    assert modtool("convert", "a.pth", "--salvage", "-o", "b.pth").code == 0
    assert torch.load(tmp_path / "b.pth").keys() == STATE.keys()


def test_what_was_salvaged_is_not_advised_again(modtool: Modtool, tmp_path: Path) -> None:
    save_zip(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:-1])
    told = "warning: truncated: a.pth ends too early: 4 of 4 tensors are whole"
    assert modtool("summary", "a.pth").err == (
        f"{told}; download or save it again, or write those with: modtool convert --salvage\n"
    )
    ran = modtool("convert", "a.pth", "--salvage", "-o", "b.pth")
    assert (ran.code, ran.err) == (0, f"{told}\n")


def without_a_header(path: Path) -> None:
    """Zeros from the end of the record of `a.weight` to within that of `a.bias`."""
    data = path.read_bytes()
    begin = ends_in(path)["a.weight"] - 4
    end = ends_in(path)["a.bias"] - 4
    path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])


def test_zeros_within_a_whole_archive(modtool: Modtool, tmp_path: Path) -> None:
    save_zip(tmp_path / "a.pth")
    without_a_header(tmp_path / "a.pth")
    ran = modtool("convert", "a.pth", "-o", "b.pth")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: a.pth: the header of member 'a/data/1' is damaged\n"
        "  download or save it again; if torch.save wrote it, `modtool convert --salvage` writes "
        "the tensors that are whole, where any is\n"
    )
    ran = modtool("convert", "a.pth", "-o", "b.pth", "--salvage")
    assert ran.code == 1
    assert ran.out.splitlines()[:2] == [
        "left out a.weight: damaged: its bytes do not give the checksum that was saved with them",
        "left out a.bias: lost: its bytes are not in the file",
    ]
    assert ran.err == (
        "warning: truncated: a.bias: a.pth is damaged: 3 of 4 tensors can be found in it\n"
    )
    rest = torch.load(tmp_path / "b.pth")
    assert list(rest) == ["empty", "b.steps"]
    assert all(torch.equal(rest[name], STATE[name]) for name in rest)


def test_a_file_of_a_set_with_zeros_in_it(modtool: Modtool, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    save_zip(tmp_path / "set" / "pytorch_model-00001-of-00002.bin")
    without_a_header(tmp_path / "set" / "pytorch_model-00001-of-00002.bin")
    torch.save({"c": torch.ones(1)}, tmp_path / "set" / "pytorch_model-00002-of-00002.bin")
    assert modtool("convert", "set", "-o", "b.pth", "--salvage").code == 1
    assert list(torch.load(tmp_path / "b.pth")) == ["empty", "b.steps", "c"]


def test_zeros_over_the_header_of_what_names_them(modtool: Modtool, tmp_path: Path) -> None:
    save_zip(tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(data[:26] + b"\xff\xff" + data[28:])
    ran = modtool("convert", "a.pth", "-o", "b.pth", "--salvage")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: a.pth: the header of member 'a/data.pkl' is damaged\n"
        "  download or save it again: what is left does not say which tensors it has\n"
    )


def test_zeros_in_an_archive_of_arrays(modtool: Modtool, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones(9), b=np.ones(9))
    data = (tmp_path / "a.npz").read_bytes()
    second = data.index(b"PK\x03\x04", 4)
    (tmp_path / "a.npz").write_bytes(data[:second] + bytes(4) + data[second + 4 :])
    ran = modtool("convert", "a.npz", "-o", "b.pth", "--salvage")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: a.npz: the header of member 'b.npy' is damaged\n")


def test_a_training_checkpoint_keeps_its_values(modtool: Modtool, tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    made = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    made["sparse"] = torch.eye(2).to_sparse()
    torch.save(made, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: data.index(b"data/4") + 100])
    options = ("--to", "checkpoint", "--salvage", "--json")
    ran = modtool("convert", "cut.pth", "-o", "b.pth", *options)
    assert ran.code == 1
    assert [item["name"] for item in json.loads(ran.out)["dropped"]] == [
        "optimizer.state.1.step",
        "optimizer.state.1.exp_avg",
        "optimizer.state.1.exp_avg_sq",
        "sparse",
    ]
    rest = torch.load(tmp_path / "b.pth")
    assert rest["epoch"] == 3
    assert rest["model"].keys() == {"weight", "bias"}
    assert rest["optimizer"]["state"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert torch.equal(rest["model"]["weight"], model.state_dict()["weight"])


def test_nothing_is_whole(modtool: Modtool, tmp_path: Path) -> None:
    save_file({"w": torch.zeros(4)}, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-1])
    ran = modtool("convert", "a.safetensors", "--salvage", "-o", "b.pth")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: a.safetensors: not one of its 1 tensors is whole\n"
        "  the file is damaged, or was cut short: download or save it again\n"
    )


def test_an_archive_of_another_kind(modtool: Modtool, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + bytes(26) + pickle.dumps(1))
    ran = modtool("summary", "a.zip")
    assert ran.code == 2
    assert ran.err == (
        "error: a.zip: truncated: a zip archive without its central directory\n"
        "  download or save it again: what is left does not say which tensors it has\n"
    )


def test_a_file_that_ends_in_its_pickle_is_named_once(modtool: Modtool, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:200])
    ran = modtool("summary", "a.pth")
    assert ran.code == 2
    assert ran.err == (
        "error: a.pth: truncated, and what it holds cannot be told: data.pkl: "
        "its pickle ends too early (byte 133)\n"
        "  download or save it again: what is left does not say which tensors it has\n"
    )


@pytest.mark.parametrize("command", ["summary", "convert --salvage -o b.pth"])
def test_a_file_that_ends_before_its_pickle_has_nothing_to_salvage(
    modtool: Modtool, tmp_path: Path, command: str
) -> None:
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:43])
    ran = modtool(*command.split(), "a.pth")
    assert ran.code == 2
    assert ran.err == (
        "error: a.pth: truncated: a zip archive without its central directory\n"
        "  download or save it again: what is left does not say which tensors it has\n"
    )


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_set_of_which_one_file_is_cut(
    modtool: Modtool, tmp_path: Path, suffix: str, indexed: bool
) -> None:
    names = [f"model-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    parts = [{"a": torch.ones(3), "b": torch.ones(2)}, {"c": torch.ones(1)}]
    folder = tmp_path / "set"
    folder.mkdir()
    for name, part in zip(names, parts, strict=True):
        if suffix == "bin":
            torch.save(part, folder / name)
        else:
            save_file(part, folder / name)
    if indexed:
        homes = {"a": names[0], "b": names[0], "c": names[1]}
        index = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
        (folder / f"{index}.index.json").write_text(json.dumps({"weight_map": homes}))
    cut = folder / names[0]
    end = sorted(ends_in(cut).values())[0]
    lost = [name for name, last in ends_in(cut).items() if last > end]
    cut.write_bytes(cut.read_bytes()[:end])
    ran = modtool("summary", "set", "--json")
    notes = [note for note in json.loads(ran.out)["notes"] if note["code"] == "truncated"]
    assert [(note["where"], note["message"]) for note in notes] == [
        (
            lost[0],
            f"{names[0]} ends too early: 1 of 2 tensors are whole; download or save it again, "
            "or write those with: modtool convert --salvage",
        )
    ]
    ran = modtool("convert", "set", "-o", "rest.safetensors")
    assert (ran.code, ran.out) == (2, "")
    assert f"set/{names[0]}: truncated: " in ran.err
    ran = modtool("convert", "set", "--salvage", "-o", "rest.safetensors", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["dropped"] == [
        {"name": lost[0], "why": "lost: its bytes are not in the file"}
    ]
    assert load_file(tmp_path / "rest.safetensors").keys() == {"a", "b", "c"} - set(lost)


def test_damage_right_behind_the_pickle_leaves_its_names(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_zip(path)
    whole = path.read_bytes()
    end = whole.index(b"PK\x07\x08")  # of data.pkl, which torch writes first
    path.write_bytes(whole[:end] + b"damaged!" + whole[end + 8 : -22])
    found = open_checkpoint(str(path), truncated=True)
    assert [tensor.name for tensor in found.tensors] == list(STATE)
    lost = [each.key for each in found.storages.values() if is_lost(each)]
    assert lost == ["0", "1", "3"]  # the empty one has nothing to lose


def test_of_two_archives_in_a_row_the_first_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.tensor([1.0, 2.0])}, path)
    chain = path.read_bytes().partition(b"PK\x01\x02")[0]  # without the central directory
    torch.save({"v": torch.tensor([3.0])}, path)
    path.write_bytes(chain + path.read_bytes().partition(b"PK\x01\x02")[0])
    found = open_checkpoint(str(path), truncated=True)
    assert [(tensor.name, tensor.shape) for tensor in found.tensors] == [("w", (2,))]


def test_a_pickle_deeper_inside_is_not_what_torch_saves(tmp_path: Path) -> None:
    path = tmp_path / "archive.pth"
    save_zip(path)
    whole = path.read_bytes().partition(b"PK\x01\x02")[0]
    path.write_bytes(whole.replace(b"archive/data.pkl", b"arc/ive/data.pkl"))
    with pytest.raises(TruncatedFileError, match="without its central directory"):
        open_checkpoint(str(path), truncated=True)
