"""Pickles to symbols: what is shown is what the real unpickler would build.

Where readers of pickles disagree with each other, or a call could have seen something else than
what is in the file at the end, the reader refuses.
"""

import io
import pickle
import pickletools
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from contextlib import suppress
from pathlib import PurePosixPath

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modtool.errors import CorruptFileError, ModtoolError, UnsafeFileError
from modtool.pickles.machine import Pickle
from modtool.pickles.opcodes import OPCODES, op_buffer, op_extension, op_unknown
from modtool.pickles.reader import read_pickle
from modtool.pickles.symbols import ABSENT, Call, Global, PersistentId
from modtool.pickles.torch_objects import StorageId, storage_id, storage_ids_in
from tests.pickles.programs import (
    agree,
    assembled,
    canonical,
    programs,
    realised,
    reality,
    shown,
)

integers = st.integers(-(2**2000), 2**2000)
keys = st.none() | st.booleans() | integers | st.floats() | st.text() | st.binary()
atoms = keys | st.binary().map(bytearray) | st.complex_numbers()
values = st.recursive(
    atoms | st.sets(keys) | st.frozensets(keys),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(keys, inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner).map(OrderedDict)
        | st.lists(inner, max_size=3).map(deque)
    ),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(values, st.integers(0, 5))
def test_what_pickle_writes_is_read_as_it_is(value: object, protocol: int) -> None:
    found = read_pickle(pickle.dumps(value, protocol))
    assert canonical(realised(found.root)) == canonical(value)
    assert agree(shown(found.root), shown(value))
    assert "Unknown" not in repr(shown(found.root))
    assert found.protocol == (protocol if protocol > 1 else 0)


@settings(max_examples=100, deadline=None)
@given(values, st.integers(0, 5), st.binary())
def test_a_pickle_ends_where_pickletools_says(value: object, protocol: int, after: bytes) -> None:
    data = b"before" + pickle.dumps(value, protocol) + after
    *_, (_, _, last) = pickletools.genops(io.BytesIO(data[6:]))
    assert last is not None
    assert read_pickle(data, 6).end == 6 + last + 1


@settings(max_examples=750, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs | st.composite(assembled)())
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_any_program_shows_what_the_real_unpickler_makes_of_it(program: bytes) -> None:
    """A program that one of the two refuses shows nothing, and so nothing wrong."""
    try:
        found = read_pickle(program)
        real = reality(program)
    except (ModtoolError, *WHATEVER):
        return
    assert canonical(realised(found.root)) == canonical(real)
    assert agree(shown(found.root), shown(real))


WHATEVER = (
    pickle.UnpicklingError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
)

REFUSED = {
    "EXT1": op_extension,
    "EXT2": op_extension,
    "EXT4": op_extension,
    "NEXT_BUFFER": op_buffer,
    "READONLY_BUFFER": op_buffer,
}
# The reader's own loop handles these (`reader.run`).
IN_THE_LOOP = {
    *("LONG_BINPUT", "BININT1", "BINGET", "BINPUT", "BINUNICODE", "MARK", "TUPLE", "REDUCE"),
    *("TUPLE2", "BINPERSID", "NEWFALSE", "EMPTY_TUPLE", "MEMOIZE", "LONG_BINGET", "TUPLE1", "STOP"),
    *("BININT", "BININT2", "BINFLOAT", "NONE", "NEWTRUE", "TUPLE3"),
}


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: opcode.name)
def test_every_opcode_is_handled_or_refused(opcode: pickletools.OpcodeInfo) -> None:
    if opcode.name in IN_THE_LOOP:
        return
    handler = OPCODES[ord(opcode.code)]
    assert handler is not op_unknown
    assert (handler in REFUSED.values()) == (opcode.name in REFUSED)


def test_bytes_that_are_no_opcode_are_refused() -> None:
    known = {ord(opcode.code) for opcode in pickletools.opcodes}
    for code in set(range(256)) - known:
        with pytest.raises(CorruptFileError, match="unknown opcode"):
            read_pickle(bytes([code]))


# One small pickle for each opcode: what it makes, by hand.
MARKED = b"(K\x01K\x02"
EXAMPLES: dict[str, tuple[bytes, object]] = {
    "INT": (b"I-12\n.", -12),
    "BININT": (b"J\xfe\xff\xff\xff.", -2),
    "BININT1": (b"K\xff.", 255),
    "BININT2": (b"M\x01\x02.", 513),
    "LONG": (b"L-12L\n.", -12),
    "LONG1": (b"\x8a\x02\x00\xff.", -256),
    "LONG4": (b"\x8b\x01\0\0\0\x7f.", 127),
    "STRING": (b"S'a\\'\\x41\\n'\n.", "a'A\n"),
    "BINSTRING": (b"T\x02\0\0\0\xc3\xa9.", "é"),
    "SHORT_BINSTRING": (b"U\x01\xe9.", "é"),
    "BINBYTES": (b"B\x01\0\0\0\xff.", b"\xff"),
    "SHORT_BINBYTES": (b"C\x01\xff.", b"\xff"),
    "BINBYTES8": (b"\x8e\x01\0\0\0\0\0\0\0\xff.", b"\xff"),
    "BYTEARRAY8": (b"\x96\x01\0\0\0\0\0\0\0\xff.", bytearray(b"\xff")),
    "NONE": (b"N.", None),
    "NEWTRUE": (b"\x88.", True),
    "NEWFALSE": (b"\x89.", False),
    "UNICODE": (b"Va\\u20ac\xe9\n.", "a€é"),
    "SHORT_BINUNICODE": (b"\x8c\x02\xc3\xa9.", "é"),
    "BINUNICODE": (b"X\x03\0\0\0\xed\xa0\x80.", "\ud800"),
    "BINUNICODE8": (b"\x8d\x01\0\0\0\0\0\0\0a.", "a"),
    "FLOAT": (b"F-1.5e3\n.", -1500.0),
    "BINFLOAT": (b"G\x3f\xf8\0\0\0\0\0\0.", 1.5),
    "EMPTY_LIST": (b"].", []),
    "APPEND": (b"]K\x01a.", [1]),
    "APPENDS": (b"]" + MARKED + b"e.", [1, 2]),
    "LIST": (MARKED + b"l.", [1, 2]),
    "EMPTY_TUPLE": (b").", ()),
    "TUPLE": (MARKED + b"t.", (1, 2)),
    "TUPLE1": (b"K\x01\x85.", (1,)),
    "TUPLE2": (b"K\x01K\x02\x86.", (1, 2)),
    "TUPLE3": (b"K\x01K\x02K\x03\x87.", (1, 2, 3)),
    "EMPTY_DICT": (b"}.", {}),
    "DICT": (MARKED + b"d.", {1: 2}),
    "SETITEM": (b"}K\x01K\x02s.", {1: 2}),
    "SETITEMS": (b"}" + MARKED + b"u.", {1: 2}),
    "EMPTY_SET": (b"\x8f.", set()),
    "ADDITEMS": (b"\x8f" + MARKED + b"\x90.", {1, 2}),
    "FROZENSET": (MARKED + b"\x91.", frozenset({1, 2})),
    "POP": (b"K\x01K\x020.", 1),
    "DUP": (b"K\x012\x86.", (1, 1)),
    "MARK": (b"K\x01(0.", 1),
    "POP_MARK": (b"K\x01" + MARKED + b"1.", 1),
    "GET": (b"K\x01p300\n0g300\n.", 1),
    "PUT": (b"K\x01p300\n0g300\n.", 1),
    "BINGET": (b"K\x01q\x070h\x07.", 1),
    "BINPUT": (b"K\x01q\x070h\x07.", 1),
    "LONG_BINGET": (b"K\x01r\0\1\0\x000j\0\1\0\0.", 1),
    "LONG_BINPUT": (b"K\x01r\0\1\0\x000j\0\1\0\0.", 1),
    "MEMOIZE": (b"K\x01q\x05K\x02\x94h\x01h\x05\x870.", 1),
    "STOP": (b"N.N.", None),
    "PROTO": (b"\x80\x05N.", None),
    "FRAME": (b"\x95\x02\0\0\0\0\0\0\0N.", None),
}
SYMBOLS = {
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"),
    *("PERSID", "BINPERSID"),
}


def test_there_is_an_example_of_every_opcode() -> None:
    names = {opcode.name for opcode in pickletools.opcodes}
    assert set(EXAMPLES) | SYMBOLS | set(REFUSED) == names


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_opcode_means_what_pickle_says(name: str) -> None:
    data, expected = EXAMPLES[name]
    found = read_pickle(data).root
    assert (type(found), found) == (type(expected), expected)
    encoding = "latin-1" if read_pickle(data).latin else "utf-8"
    assert canonical(pickle.loads(data, encoding=encoding)) == canonical(expected)


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_cannot_hold_is_refused(name: str) -> None:
    code = next(opcode.code for opcode in pickletools.opcodes if opcode.name == name)
    with pytest.raises(CorruptFileError, match=r"extension registry|out-of-band"):
        read_pickle(b"N" + code.encode("latin-1") + b"\x01\0\0\0.")


# -- symbols -------------------------------------------------------------------------------------


def call_of(data: bytes) -> Call:
    root = read_pickle(data).root
    assert isinstance(root, Call)
    return root


@pytest.mark.parametrize(
    "data",
    [
        b"cos.path\njoin\n.",
        b"\x80\x04\x8c\x07os.path\x8c\x04join\x93.",
        b"cos.path\njoin\ncos.path\njoin\n\x86.",
    ],
)
def test_a_name_that_would_be_imported_stays_a_name(data: bytes) -> None:
    found = read_pickle(data)
    assert [symbol.qualified for symbol in found.globals] == ["os.path.join"]


@pytest.mark.parametrize(
    ("data", "how", "arguments"),
    [
        (b"cos\nsystem\nK\x01\x85R.", "reduce", (1,)),
        (b"cos\nsystem\nK\x01\x85\x81.", "new", (1,)),
        (b"cos\nsystem\nK\x01\x85}\x92.", "new", (1,)),
        (b"(K\x01ios\nsystem\n.", "instance", (1,)),
        (b"(cos\nsystem\nK\x01o.", "instance", (1,)),
    ],
)
def test_a_call_stays_a_call(data: bytes, how: str, arguments: tuple[object, ...]) -> None:
    found = call_of(data)
    assert (found.callee, found.how, found.arguments) == ("os.system", how, arguments)
    assert (found.state, found.items, found.appended) == (ABSENT, None, None)


def test_keywords_of_a_new_object_are_kept() -> None:
    made = call_of(b"\x80\x04ca\nB\n)}X\x01\0\0\0kK\x01s\x92.")
    assert made.keywords == {"k": 1}


def test_what_is_put_into_an_object_is_kept_apart() -> None:
    made = call_of(b"ca\nB\n)R(K\x01K\x02u(K\x03e}X\x01\0\0\0xK\x04sb.")
    assert (made.items, made.appended, made.state) == ({1: 2}, [3], {"x": 4})


def test_calls_whose_result_is_thrown_away_are_recorded() -> None:
    found = read_pickle(b"cos\nsystem\nX\x01\0\0\0a\x85R0N.")
    assert found.root is None
    assert [(call.callee, call.arguments) for call in found.calls] == [("os.system", ("a",))]


def test_persistent_ids_are_symbols() -> None:
    found = read_pickle(b"Pname\nK\x01Q\x86.")
    assert isinstance(found.root, tuple)
    assert [symbol.value for symbol in found.persistent_ids] == ["name", 1]
    assert all(isinstance(part, PersistentId) for part in found.root)


@pytest.mark.parametrize("protocol", range(6))
def test_an_object_of_a_class_at_every_protocol(protocol: int) -> None:
    data = pickle.dumps(PurePosixPath("a"), protocol)
    made = call_of(data)
    assert made.callee == "pathlib.PurePosixPath"
    plain = Plain()
    plain.x = [1]
    made = call_of(pickle.dumps(plain, protocol))
    assert made.made == f"{Plain.__module__}.Plain"
    assert made.state == {"x": [1]}


class Plain:
    x: object


# -- where readers disagree ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"I010\n.",  # 8 in C, an error in Python
        b"I0x10\n.",
        b"I-0\n.",  # False in C, 0 in Python
        b"I 1\n.",
        b"I1_0\n.",
        b"L010L\n.",
        b"S'\\u0041'\n.",  # six characters for pickle
        b"S'\\101'\n.",
        b"S'\\N{BULLET}'\n.",
        b"S 'a'\n.",
        b"N(N.",  # an open mark at the end
        b"Np-1\n.",
        b"Np+1\n.",
        b"\x80\x06N.",
    ],
)
def test_what_readers_disagree_on_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptFileError):
        read_pickle(data)


@pytest.mark.parametrize(
    "data",
    [
        # OrderedDict copies the list of pairs, so what is appended later is not in it
        b"]q\x00K\x01K\x02\x86a0ccollections\nOrderedDict\nh\x00\x85Rh\x00K\x01K\x03\x86a0.",
        b"]q\x00]q\x01K\x01aa0ccollections\nOrderedDict\nh\x00\x85Rh\x01K\x03a0.",
        b"}q\x000cbuiltins\ndict\nh\x00\x85Rh\x00K\x01K\x02s0.",
        b"\x8fq\x000cbuiltins\nlist\nh\x00\x85Rh\x00(K\x01\x900.",
        b"}q\x000ca\nB\n)h\x00\x92h\x00X\x01\0\0\0kK\x01s0.",  # keywords are copied
        b"ca\nB\n)R}q\x00bh\x00X\x01\0\0\0kK\x01s0.",  # __dict__ is updated, not replaced
        b"ca\nB\n)RN}q\x00\x86bh\x00X\x01\0\0\0kK\x01s0.",
    ],
)
def test_what_a_call_has_got_must_not_change(data: bytes) -> None:
    with pytest.raises(UnsafeFileError, match="changes after a call has got it"):
        read_pickle(data)


def test_two_states_for_one_object_are_refused() -> None:
    with pytest.raises(CorruptFileError, match="state given to one object twice"):
        read_pickle(b"ca\nB\n)R}b}b.")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends too early"),
        (b"N", "ends too early"),
        (b".", "stack underflow"),
        (b"0.", "stack underflow"),
        (b"1.", "stack underflow"),
        (b"(.", "open mark"),
        (b"2.", "stack underflow"),
        (b"R.", "stack underflow"),
        (b"NR.", "stack underflow"),
        (b"N)R.", "uncallable"),
        (b"ca\nB\nNR.", "no tuple"),
        (b"ca\nB\n]\x81.", "no tuple"),
        (b"ca\nB\n)N\x92.", "keyword arguments"),
        (b"ca\nB\n)}K\x01K\x02s\x92.", "keyword arguments"),
        (b"h\x00.", "never stored"),
        (b"j\0\0\0\0.", "never stored"),
        (b"q\x00.", "stack underflow"),
        (b"\x94.", "stack underflow"),
        (b"NNs.", "stack underflow"),
        (b"NNNs.", "items for something"),
        (b"}NNNu.", "stack underflow"),
        (b"}(Nu.", "key without its value"),
        (b"(Nd.", "key without its value"),
        (b"NNa.", "append to something"),
        (b"N(N\x90.", "no set"),
        (b"NNb.", "state for something"),
        (b"}]Ns.", "a list as dictionary key"),
        (b"}]\x85Ns.", "a list as dictionary key"),
        (b"}}\x85\x85Ns.", "a dict as dictionary key"),
        (b"(]\x91.", "a list as dictionary key"),
        (b"NN\x93.", "no text"),
        (b"(o.", "not a well-formed pickle"),
        (b"Iabc\n.", "no plain decimal"),
        (b"I\n.", "no plain decimal"),
        (b"Fabc\n.", "could not convert"),
        (b"X\x02\0\0\0\xff\xff.", "decode"),
        (b"X\xff\0\0\0a.", "ends too early"),
        (b"Va\n", "ends too early"),
        (b"Va", "its pickle ends too early"),
        (b"ca\nb", "its pickle ends too early"),
    ],
)
def test_a_malformed_pickle_is_a_clear_error(data: bytes, reason: str) -> None:
    with pytest.raises(CorruptFileError, match=reason) as error:
        read_pickle(data, where="x.pth: data.pkl")
    assert error.value.message.startswith("x.pth: data.pkl: ")


@settings(max_examples=100, deadline=None)
@given(values, st.integers(0, 5), st.data())
def test_a_pickle_that_is_cut_short_is_an_error(
    value: object, protocol: int, data: st.DataObject
) -> None:
    whole = pickle.dumps(value, protocol)
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(CorruptFileError):
        read_pickle(whole[:end])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_pickle_or_a_clear_error(data: bytes) -> None:
    with suppress(ModtoolError):
        assert isinstance(read_pickle(data), Pickle)


# -- what torch writes -----------------------------------------------------------------------------


def data_pickle(value: object, protocol: int = 2) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, pickle_protocol=protocol)
    with zipfile.ZipFile(stream) as archive:
        return archive.read("archive/data.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_a_state_dict_as_torch_writes_it(protocol: int) -> None:
    found = read_pickle(data_pickle(torch.nn.Linear(3, 2).state_dict(), protocol))
    names = {symbol.qualified for symbol in found.globals}
    assert names - {"torch.FloatStorage"} == {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor_v2",
    }
    storages = [storage_id(symbol) for symbol in found.persistent_ids]
    assert storages == [
        StorageId("0", "float32", "cpu", 6),
        StorageId("1", "float32", "cpu", 2),
    ]
    tensors = [call for call in found.calls if call.callee.endswith("_v2")]
    assert [call.arguments[1:4] for call in tensors] == [(0, (2, 3), (3, 1)), (0, (2,), (1,))]


@pytest.mark.parametrize("protocol", range(6))
def test_what_containers_torch_files_hold(protocol: int) -> None:
    value = {
        "counter": Counter(a=2),
        "default": defaultdict(None, {"k": [1]}),
        "ordered": OrderedDict([("b", 1), ("a", 2)]),
        "deque": deque([1, 2], 5),
        "size": torch.Size([2, 3]),
        "device": torch.device("cuda", 1),
        "dtype": torch.float16,
    }
    root = read_pickle(data_pickle(value, protocol)).root
    assert isinstance(root, dict)
    told = {key: shown(item) for key, item in root.items()}
    assert told == {
        "counter": [["'a'", "2"]],
        "default": [["'k'", ["1"]]],
        "ordered": [["'b'", "1"], ["'a'", "2"]],
        "deque": ["1", "2"],
        "size": ["2", "3"],
        "device": "'cuda:1'",
        "dtype": "float16",
    }
    assert isinstance(root["dtype"], Global)


# -- the memo ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "root"),
    [
        # Python 2 numbers from 1; what MEMOIZE stores gets the number of values stored so far.
        (b"(K\x01q\x01K\x02q\x02h\x01h\x02t.", (1, 2, 1, 2)),
        (b"(K\x01q\x05K\x02\x94h\x05h\x01t.", (1, 2, 1, 2)),
        (b"(K\x01\x94K\x02q\x07K\x03\x94h\x00h\x07h\x02t.", (1, 2, 3, 1, 2, 3)),
        (b"(K\x01\x94K\x02q\x00h\x00t.", (1, 2, 2)),
        (b"(K\x01r\x00\x00\x00\x00K\x02r\x09\x00\x00\x00j\x09\x00\x00\x00h\x00t.", (1, 2, 2, 1)),
        (b"(K\x01p0\nK\x02p3\ng3\ng0\nt.", (1, 2, 2, 1)),
    ],
)
def test_memo_numbered_in_any_way(data: bytes, root: object) -> None:
    assert pickle.loads(b"\x80\x04" + data) == root
    assert read_pickle(b"\x80\x04" + data).root == root


@pytest.mark.parametrize("data", [b"h\x00.", b"K\x01q\x02h\x01.", b"K\x01\x94j\x01\x00\x00\x00."])
def test_a_memo_entry_that_was_never_stored(data: bytes) -> None:
    with pytest.raises(CorruptFileError, match="a memo entry that was never stored"):
        read_pickle(data)


def test_storages_are_found_in_states_items_and_containers_each_symbol_once() -> None:
    ids = [
        PersistentId(("storage", Global("torch", "FloatStorage"), key, "cpu", 1)) for key in "abcd"
    ]
    call = Call(Global("x", "f"), (ids[0], ids[0]), state={"local": [ids[1]]}, items={1: (ids[2],)})
    call.appended = [call, PersistentId("module"), ids[3]]
    assert sorted(found.key for found in storage_ids_in([call])) == ["a", "b", "c", "d"]
    assert list(storage_ids_in([call], 1)) == []
