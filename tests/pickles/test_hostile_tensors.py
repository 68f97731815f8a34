"""Objects that contain themselves, and tensors that claim what they have not."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from modtool.errors import ModtoolError
from modtool.formats import open_checkpoint
from tests.archives import HOOKS, module, storage, tensor, text, torch_file
from tests.conftest import Ran
from tests.examiner import Examiner, examiner

__all__ = ["examiner"]

Modtool = Callable[..., Ran]

# -- what contains itself --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"]q\x00h\x00a",
        b"]q\x00(h\x00h\x00h\x00e",
        b"]q\x00h\x00\x85a",
        b"}q\x00" + text("a") + b"h\x00s",
        b"}q\x00(" + text("a") + b"h\x00" + text("b") + b"h\x00u",
        b"ccollections\nOrderedDict\n)Rq\x00" + text("a") + b"h\x00s",
        b"cpkg\nThing\n)\x81q\x00}" + text("a") + b"h\x00sb",
        b"cpkg\nThing\n)\x81q\x00h\x00b",
        b"cargparse\nNamespace\n)\x81q\x00}" + text("a") + b"h\x00sb",
        b"}q\x00(" + text("model") + b"h\x00" + text("w") + tensor() + b"u",
        b"}q\x00(" + text("model") + b"}" + text("net") + b"h\x00s" + text("w") + tensor() + b"u",
        b"]q\x00(" + tensor() + b"h\x00e",
        b"cpkg\nThing\n)\x81q\x00}(" + text("a") + b"h\x00" + text("w") + tensor() + b"ub",
    ],
)
def test_what_contains_itself(examiner: Examiner, tmp_path: Path, body: bytes) -> None:
    examiner.examine(torch_file(tmp_path / "root.pth", body))
    inside = b"}(" + text("v") + tensor() + text("x") + body + b"u"
    outcome = examiner.examine(torch_file(tmp_path / "inside.pth", inside))
    assert outcome.code == 0


def test_a_module_that_contains_itself_is_an_error(examiner: Examiner, tmp_path: Path) -> None:
    head, _, tail = module(text("a") + b"*").partition(b"*")
    head = head.replace(b")\x81", b")\x81q\x00", 1)
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", head + b"h\x00" + tail))
    assert outcome.code == 2
    assert "contains itself" in outcome.err


# -- tensors that lie ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        ((5,), (1,), 0),
        ((4,), (1,), 1),
        ((2, 2), (3, 1), 0),
        ((4,), (-1,), 3),
        ((4,), (1,), -1),
        ((-4,), (1,), 0),
        ((4,), (2**62,), 0),
        ((2**32, 2**32), (1, 1), 0),
        ((2**31, 2**31, 4), (0, 0, 0), 0),
        ((2**63,), (0,), 0),
        ((2**64,), (1,), 0),
        ((4,), (1, 1), 0),
        ((4, 1), (1,), 0),
        ((1,) * 65, (1,) * 65, 0),
        ((1,), (1,), 2**63 - 1),
        ((2,), (2**63 - 1,), 2**63 - 1),
        ((0, 2**63), (1, 1), 0),
    ],
)
def test_a_tensor_that_claims_what_it_has_not(
    examiner: Examiner,
    tmp_path: Path,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int,
) -> None:
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", tensor(shape, stride, offset)))
    assert outcome.code == 2


@pytest.mark.parametrize(
    "store",
    [
        b"N",
        b"K\x01Q",
        b"NQ",
        b")Q",
        text("storage") + b"Q",
        b"(" + text("module") + b"NNNNtQ",
        b"(" + text("storage") + b"NNNNtQ",
        storage("9" * 1000),
        storage(place="c" * 1000),
        storage(place=b"N"),
        storage(numel=b"N"),
        *(storage(numel=count) for count in (5, -4, 2**62, 2**63, 2**70)),
        storage(kind="torch\nHexStorage"),
        storage(kind="evil\nUntypedStorage", numel=16),
    ],
)
def test_a_storage_that_is_none(examiner: Examiner, tmp_path: Path, store: bytes) -> None:
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", tensor(store=store)))
    assert outcome.code == 2


@pytest.mark.parametrize("key", ["9", "../data.pkl"])
def test_a_storage_without_a_record_is_lost(
    examiner: Examiner, modtool: Modtool, tmp_path: Path, key: str
) -> None:
    path = torch_file(tmp_path / "x.pth", tensor(store=storage(key)))
    outcome = examiner.examine(path)
    assert outcome.code == 0
    assert "x.pth is damaged: 0 of 1 tensors can be found in it" in outcome.out
    for command in (
        ("check",),
        ("convert", "-o", "y.pth"),
        ("convert", "--salvage", "-o", "y.pth"),
    ):
        assert modtool(command[0], str(path), *command[1:]).code == 2
    assert not (tmp_path / "y.pth").exists()


def test_keys_of_two_types_are_refused(examiner: Examiner, tmp_path: Path) -> None:
    """`torch.load` takes 0 and "0" for two storages, both read from one record."""
    body = b"(" + tensor(store=storage(b"K\x00")) + tensor() + b"t"
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", body))
    assert outcome.code == 2
    assert "text and numbers at once" in outcome.err


def test_a_storage_of_two_types_is_refused(examiner: Examiner, tmp_path: Path) -> None:
    """`torch.load` takes the first type for both, in the order of the pickle."""

    body = storage(kind="torch\nIntStorage") + b"0" + tensor()
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", body))
    assert outcome.code == 2
    assert "storage 0 is int32 and float32 at once" in outcome.err


REBUILDS = [
    *("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor"),
    *("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_sparse_tensor"),
    *("_rebuild_nested_tensor", "_rebuild_meta_tensor_no_storage", "_rebuild_wrapper_subclass"),
    *("_rebuild_device_tensor_from_cpu_tensor", "_rebuild_device_tensor_from_numpy"),
    "_rebuild_xla_tensor",
]
ARGUMENTS = [
    b"N",
    b"K\x01",
    b"]",
    b")",
    b"}",
    text("a"),
    b"ctorch\nfloat32\n",
    tensor(),
    b"ctorch\nSize\n)R",
]


@pytest.mark.parametrize("name", REBUILDS)
def test_rebuild_calls_with_arguments_that_do_not_fit(tmp_path: Path, name: str) -> None:
    for count in range(9):
        for argument in ARGUMENTS:
            body = f"ctorch._utils\n{name}\n(".encode() + argument * count + b"tR"
            with suppress(ModtoolError):
                open_checkpoint(str(torch_file(tmp_path / "x.pth", body)))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (b"(K\x00K\x01u", "elements are set"),
        (b"K\x01a", "elements are set"),
        (b"}b", "state"),
        (b"(" + b"NNNNtb", "state"),
    ],
)
def test_a_tensor_that_is_changed_after_it_was_made(
    examiner: Examiner, tmp_path: Path, what: bytes, reason: str
) -> None:
    outcome = examiner.examine(torch_file(tmp_path / "x.pth", tensor() + what))
    assert outcome.code == 2
    assert reason in outcome.err


@pytest.mark.parametrize("attribute", ["data", "requires_grad", "__class__"])
def test_attributes_that_replace_a_tensor(
    examiner: Examiner, tmp_path: Path, attribute: str
) -> None:
    """`torch._utils._set_obj_state` sets them, `data` included, even with weights_only=True."""
    state = b"}" + text(attribute) + tensor((2,)) + b"s"
    arguments = tensor()[len(b"ctorch._utils\n_rebuild_tensor_v2\n") : -1]
    typed = b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\n"
    typed += b"ctorch\nTensor\n" + arguments + state + b"tR"
    parameter = b"ctorch._utils\n_rebuild_parameter_with_state\n("
    parameter += tensor() + b"\x88" + HOOKS + state + b"tR"
    for body in (typed, parameter):
        outcome = examiner.examine(torch_file(tmp_path / "x.pth", body))
        assert outcome.code == 2
        assert "attributes replace its data" in outcome.err
