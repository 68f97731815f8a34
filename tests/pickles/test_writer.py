"""Symbols and plain values to pickle bytes."""

import collections
import io
import pickle
import pickletools
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modtool.errors import OutputError
from modtool.pickles.reader import read_pickle
from modtool.pickles.symbols import Call, Global, PersistentId
from modtool.pickles.writer import write_pickle

atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
values = st.recursive(
    atoms | st.frozensets(atoms) | st.sets(atoms) | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(atoms, inner)
        | st.lists(inner).map(tuple)
        | st.tuples(inner, inner)
    ),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(values)
def test_what_is_written_is_what_pickle_reads(value: object) -> None:
    written = write_pickle(value)
    assert repr(pickle.loads(written)) == repr(value) or pickle.loads(written) == value
    assert type(pickle.loads(written)) is type(value)


@settings(max_examples=200, deadline=None)
@given(values, st.integers(0, 5))
def test_writing_what_was_read_is_stable(value: object, protocol: int) -> None:
    once = write_pickle(read_pickle(pickle.dumps(value, protocol)).root)
    assert pickle.loads(once) == value
    assert write_pickle(read_pickle(once).root) == once


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b"\x80\x02N."),
        (True, b"\x80\x02\x88."),
        (255, b"\x80\x02K\xff."),
        (256, b"\x80\x02M\x00\x01."),
        (-1, b"\x80\x02J\xff\xff\xff\xff."),
        (2**31, b"\x80\x02\x8a\x05\x00\x00\x00\x80\x00."),
        ((), b"\x80\x02)."),
        ([1], b"\x80\x02]q\x00K\x01a."),
        (["a", "a"], b"\x80\x02]q\x00(X\x01\x00\x00\x00aq\x01h\x01e."),
        ({}, b"\x80\x02}q\x00."),
    ],
)
def test_the_bytes_of_small_values(value: object, expected: bytes) -> None:
    assert write_pickle(value) == expected


def test_protocol_2_only() -> None:
    value = {"a": (1, 2, 3, 4), "b": b"\xff", "c": {1}, "d": 2**70, "e": bytearray(b"x"), "f": 1j}
    opcodes = [opcode for opcode, _, _ in pickletools.genops(write_pickle(value))]
    assert max(opcode.proto for opcode in opcodes) == 2


def test_plain_data_passes_weights_only(tmp_path: object) -> None:
    value = {
        "list": [1, 2.5, "x", None, True],
        "tuple": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "bytes": b"\x00\xff",
        "empty": b"",
        "bytearray": bytearray(b"ab"),
        "set": {1, 2},
        "complex": 1 + 2j,
        "large": 2**100,
        7: {"nested": {}},
    }
    from torch._weights_only_unpickler import load

    assert load(io.BytesIO(write_pickle(value))) == value


def test_shared_objects_stay_shared() -> None:
    inner: list[object] = [1]
    first, second = pickle.loads(write_pickle([inner, inner]))
    assert first is second


def test_cycles_through_every_container() -> None:
    items: list[object] = []
    items.append({"tuple": (items,), "items": items})
    read = pickle.loads(write_pickle(items))
    assert read[0]["tuple"][0] is read
    assert read[0]["items"] is read
    items = []
    items.append((items,))
    read = pickle.loads(write_pickle(items[0]))
    assert read[0][0] is read


def test_depth_costs_nothing() -> None:
    value: object = 0
    for _ in range(100_000):
        value = [value]
    written = write_pickle(value)
    assert written.count(b"]") >= 100_000
    again: object = read_pickle(written).root
    while isinstance(again, list):
        (again,) = again
    assert again == 0


def test_large_containers_are_batched() -> None:
    value = {"list": list(range(5001)), "dict": dict.fromkeys(range(2001))}
    assert pickle.loads(write_pickle(value)) == value


def test_an_object_that_makes_itself_is_refused() -> None:
    call = Call(Global("builtins", "set"), ())
    call.arguments = (call,)
    with pytest.raises(OutputError, match="needed to make itself"):
        write_pickle(call)
    members: set[object] = set()
    members.add(Call(Global("builtins", "set"), (members,)))
    with pytest.raises(OutputError, match="needed to make itself"):
        write_pickle(members)


@pytest.mark.parametrize(
    ("module", "name"), [("os\nsystem\n(", "x"), ("os", "system\n"), ("", "x"), ("x", "")]
)
def test_a_name_cannot_smuggle_opcodes(module: str, name: str) -> None:
    with pytest.raises(OutputError, match="no name"):
        write_pickle(Global(module, name))


def test_an_unknown_value_is_refused() -> None:
    with pytest.raises(OutputError, match="type Fraction"):
        write_pickle([Fraction(1, 2)])


def test_replace_and_persistent_ids() -> None:
    first, second = PersistentId(("storage", "a")), PersistentId(("storage", "b"))
    old: list[object] = ["old"]
    root = [first, old, second, old]
    seen: list[object] = []

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, pid: object) -> object:
            seen.append(pid)
            return pid

    def moved(symbol: PersistentId) -> object:
        return None if symbol is first else PersistentId(("storage", "c"))

    written = write_pickle(root, persistent_id=moved, replace={id(old): {"new": 1}})
    read = Unpickler(io.BytesIO(written)).load()
    assert read == [("storage", "a"), {"new": 1}, ("storage", "c"), {"new": 1}]
    assert read[1] is read[3]
    assert seen == [("storage", "a"), ("storage", "c")]
    classes = write_pickle([first], persistent_id=lambda symbol: Global("collections", "deque"))
    assert pickle.loads(classes) == [collections.deque]


class Keyworded:
    def __new__(cls, *arguments: object, **keywords: object) -> "Keyworded":
        made = super().__new__(cls)
        made.seen = (arguments, keywords)
        return made

    seen: tuple[object, ...]

    def __getnewargs_ex__(self) -> tuple[tuple[object, ...], dict[str, object]]:
        return (1, 2), {"three": 3}


class Outer:
    class Inner:
        pass


@dataclass
class Plain:
    items: dict[str, object] = field(default_factory=dict)
    me: object = None


class Odd(list[object]):
    pass


def rewritten(value: object, protocol: int) -> object:
    return pickle.loads(write_pickle(read_pickle(pickle.dumps(value, protocol)).root))


@pytest.mark.parametrize("protocol", range(6))
def test_objects_written_back_are_the_same(protocol: int) -> None:
    plain = Plain({"a": 1})
    plain.me = plain
    read = rewritten([plain, plain], protocol)
    assert isinstance(read, list)
    assert read[0] is read[1]
    assert read[0].me is read[0]
    assert read[0].items == {"a": 1}

    ordered = collections.OrderedDict(x=1, y=2)
    assert rewritten(ordered, protocol) == ordered
    assert rewritten(collections.defaultdict(list, {"k": [1]}), protocol) == {"k": [1]}
    assert rewritten(partial(int, base=2), protocol)("101") == 5  # type: ignore[operator]
    assert rewritten(Outer.Inner, max(protocol, 2)) is Outer.Inner


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_list_of_a_class_that_contains_itself(protocol: int) -> None:
    odd = Odd([1, 2])
    odd.append(odd)
    again = rewritten(odd, protocol)
    assert isinstance(again, Odd)
    assert again[:2] == [1, 2]
    assert again[2] is again


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_new_with_keywords(protocol: int) -> None:
    made = Keyworded.__new__(Keyworded, 9)
    read = rewritten(made, protocol)
    assert isinstance(read, Keyworded)
    assert read.seen == ((9,), {}) or read.seen == ((1, 2), {"three": 3})
    call = Call(Global(__name__, "Keyworded"), (5,), "new", keywords={"six": 6})
    direct = pickle.loads(write_pickle(call))
    assert direct.seen == ((5,), {"six": 6})


def test_instance_of_protocol_0() -> None:
    call = Call(Global("fractions", "Fraction"), (1, 3), "instance")
    written = write_pickle([call, call])
    first, second = pickle.loads(written)
    assert first is second
    assert str(first) == "1/3"
    root = read_pickle(written).root
    assert isinstance(root, list)
    assert root[0].how == "instance"


def test_state_comes_after_items() -> None:
    made = collections.OrderedDict(a=1)
    made.note = "kept"  # type: ignore[attr-defined]
    read = rewritten(made, 2)
    assert read.note == "kept"  # type: ignore[attr-defined]


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 3)
        self.second = torch.nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.norm = torch.nn.BatchNorm1d(3)


def test_a_module_with_flags_flipped_and_ties_kept() -> None:
    net = Net()
    parts: list[torch.Tensor] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            if isinstance(value, torch.storage.TypedStorage):
                parts.append(torch.tensor([], dtype=value.dtype).set_(value))
                return ("storage", len(parts) - 1)
            return None

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, pid: object) -> object:
            assert isinstance(pid, tuple)
            return parts[pid[1]].storage()  # type: ignore[no-untyped-call]

    with torch.no_grad():
        buffer = io.BytesIO()
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            Pickler(buffer, 2).dump(net)
            pickled = read_pickle(buffer.getvalue())
            flipped = {
                id(call): Call(call.function, (call.arguments[0], False, *call.arguments[2:]))
                for call in pickled.calls
                if call.callee == "torch._utils._rebuild_parameter"
            }
            written = write_pickle(pickled.root, replace=flipped)
            read = Unpickler(io.BytesIO(written)).load()
    assert len(flipped) == 5
    assert isinstance(read, Net)
    assert read.second.weight is read.first.weight
    assert not any(parameter.requires_grad for parameter in read.parameters())
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, read.state_dict()[name])
