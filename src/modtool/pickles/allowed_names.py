"""What `torch.load(..., weights_only=True)` allows, and how the objects it asks for are spelled.

Source: torch 2.13, `torch/_weights_only_unpickler.py`, `torch/serialization.py`, `torch/_utils.py`.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from modtool.pickles.policy import REBUILDS, SCHEMES, in_module, words
from modtool.records import DTYPES

__all__ = [
    "ALLOWED",
    "BITS",
    "BIT_GENERATORS",
    "BLOCKED_MODULES",
    "DICTS",
    "HIDDEN",
    "IMPORT_MAPPING",
    "KNOWN",
    "LOWER_CASE_CLASSES",
    "NAMED",
    "NAME_MAPPING",
    "NUMPY_DTYPES",
    "NUMPY_LETTERS",
    "OPTIMIZER",
    "RANDOM",
    "REGISTERED",
    "UNSUPPORTED",
]

BLOCKED_MODULES = frozenset({"sys", "os", "posix", "nt"})

QUANTIZED = ("QUInt8", "QInt8", "QInt32", "QUInt4x2", "QUInt2x4")
COMPLEX = ("ComplexDouble", "ComplexFloat")
TYPES = ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
NOT_ALLOWED_REBUILDS = frozenset(
    in_module(
        "torch._utils",
        "_rebuild_sparse_csr_tensor _rebuild_xla_tensor _rebuild_mlc_tensor",
    )
)

ALLOWED = frozenset(
    (
        *in_module("collections", "OrderedDict Counter"),
        *in_module("builtins", "bytearray set complex"),
        "_codecs.encode",
        *in_module("torch", "Size Tensor device"),
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch._tensor._rebuild_from_type_v2",
        *in_module("torch.storage", "TypedStorage UntypedStorage"),
        *(f"torch.{name}" for name in DTYPES),
        *SCHEMES,
        *(name for name in in_module("torch._utils", REBUILDS) if name not in NOT_ALLOWED_REBUILDS),
        *(f"torch.{name}Storage" for name in TYPES + QUANTIZED + COMPLEX),
        *(f"torch.cuda.{name}Storage" for name in TYPES + COMPLEX),
        *(f"torch.{room}{name}Tensor" for room in ("", "cuda.") for name in TYPES),
        *(
            f"torch.{room}sparse.{name}Tensor"
            for room in ("", "cuda.")
            for name in TYPES
            if name != "Bool"
        ),
    )
)

# What torch allows besides, and the module of its own that has to be imported for it.
REGISTERED: Mapping[str, str] = MappingProxyType(
    {
        name: module
        for module, names in {
            "torch": (
                *in_module("torch.nested._internal.nested_tensor", "NestedTensor _rebuild_njt"),
                *in_module("torch.distributed._mesh_layout", "_MeshLayout _FlatLayout"),
            ),
            "torch._dynamo": ("torch._dynamo.decorators._DimRange",),
            "torch.distributed.tensor": (
                "torch.distributed.device_mesh.DeviceMesh",
                "torch.distributed.tensor.DTensor",
                *in_module(
                    "torch.distributed.tensor._dtensor_spec",
                    "DTensorSpec ShardOrderEntry TensorMeta",
                ),
                *in_module(
                    "torch.distributed.tensor.placement_types",
                    "Partial Replicate Shard _StridedShard",
                ),
            ),
        }.items()
        for name in names
    }
)

# Python 2 names of torch's own short table (`torch._utils.IMPORT_MAPPING`, `NAME_MAPPING`), which
# it applies at every protocol; only those that change an answer.
IMPORT_MAPPING: Mapping[str, str] = MappingProxyType(
    {
        "__builtin__": "builtins",
        "copy_reg": "copyreg",
        "Queue": "queue",
        "repr": "reprlib",
        "_abcoll": "collections.abc",
        "UserDict": "collections",
        "UserList": "collections",
        "UserString": "collections",
        "whichdb": "dbm",
        "StringIO": "io",
        "cStringIO": "io",
    }
)
NAME_MAPPING: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("__builtin__", "xrange"): "builtins.range",
        ("__builtin__", "reduce"): "functools.reduce",
        ("__builtin__", "intern"): "sys.intern",
        ("__builtin__", "unichr"): "builtins.chr",
        ("__builtin__", "unicode"): "builtins.str",
        ("__builtin__", "long"): "builtins.int",
        ("__builtin__", "basestring"): "builtins.str",
        ("exceptions", "StandardError"): "builtins.Exception",
        ("itertools", "izip"): "builtins.zip",
        ("itertools", "imap"): "builtins.map",
        ("itertools", "ifilter"): "builtins.filter",
        ("itertools", "ifilterfalse"): "itertools.filterfalse",
        ("itertools", "izip_longest"): "itertools.zip_longest",
        ("UserDict", "IterableUserDict"): "collections.UserDict",
        ("UserList", "UserList"): "collections.UserList",
        ("UserString", "UserString"): "collections.UserString",
    }
)

# The opcodes that it does not know, by what they are called in `pickletools`.
UNSUPPORTED: Mapping[int, str] = MappingProxyType(
    {
        ord(code): name
        for code, name in (
            *(("0", "POP"), ("1", "POP_MARK"), ("2", "DUP"), ("F", "FLOAT"), ("I", "INT")),
            *(("L", "LONG"), ("S", "STRING"), ("T", "BINSTRING"), ("V", "UNICODE")),
            *(("B", "BINBYTES"), ("C", "SHORT_BINBYTES"), ("P", "PERSID"), ("d", "DICT")),
            *(("g", "GET"), ("p", "PUT"), ("i", "INST"), ("o", "OBJ"), ("l", "LIST")),
            *(("\x82", "EXT1"), ("\x83", "EXT2"), ("\x84", "EXT4"), ("\x8b", "LONG4")),
            *(("\x8c", "SHORT_BINUNICODE"), ("\x8d", "BINUNICODE8"), ("\x8e", "BINBYTES8")),
            *(("\x90", "ADDITEMS"), ("\x91", "FROZENSET"), ("\x92", "NEWOBJ_EX")),
            *(("\x93", "STACK_GLOBAL"), ("\x94", "MEMOIZE"), ("\x95", "FRAME")),
            *(("\x96", "BYTEARRAY8"), ("\x97", "NEXT_BUFFER"), ("\x98", "READONLY_BUFFER")),
        )
    }
)

# numpy 1.25 and newer have a class for each kind of dtype, which is what BUILD asks for.
NUMPY_DTYPES: Mapping[str, str] = MappingProxyType(
    {"b1": "Bool", "f2": "Float16", "f4": "Float32", "f8": "Float64"}
    | {f"i{size}": f"Int{8 * size}" for size in (1, 2, 4, 8)}
    | {f"u{size}": f"UInt{8 * size}" for size in (1, 2, 4, 8)}
    | {"c8": "Complex64", "c16": "Complex128", "f16": "LongDouble", "c32": "CLongDouble"}
    | {"M8": "DateTime64", "m8": "TimeDelta64"}
)
NUMPY_LETTERS: Mapping[str, str] = MappingProxyType(
    {"O": "Object", "S": "Bytes", "U": "Str", "V": "Void"}
)

# What numpy's functions make random numbers of, and give a state.
RANDOM: Mapping[str, str] = MappingProxyType(
    {
        "numpy.random.__RandomState_ctor": "RandomState",
        "numpy.random._pickle.__randomstate_ctor": "RandomState",
        "numpy.random._pickle.__generator_ctor": "Generator",
    }
)
BITS = "numpy.random._pickle.__bit_generator_ctor"
BIT_GENERATORS = words("MT19937 PCG64 PCG64DXSM Philox SFC64")

# Modules that need no import of their own, and rooms of torch that come whole with `import torch`.
KNOWN = re.compile(
    r"|builtins|torch"
    r"|torch\.(?:_C|_utils|_tensor|nn|optim|serialization|storage|torch_version)"
    r"|torch\.nn\.(?:functional|parameter|modules\.(?!linear_cross_entropy\Z)\w+)|torch\.optim\.\w+"
)
DICTS = frozenset({"collections.OrderedDict", "collections.Counter"})
# Classes that `torch.optim` itself has: it deletes the names of the modules that define them.
OPTIMIZER = re.compile(r"torch\.optim\.(?!lr_scheduler\.|swa_utils\.)\w+\.[A-Z]\w*")
# Modules to which no attributes lead: their names are deleted, or those of functions hide them.
HIDDEN = re.compile(
    r"torch\.(?:autograd\.variable|export\.unflatten|nn\.parallel\.data_parallel"
    r"|nn\.utils\.(?:spectral_norm|weight_norm)|optim\.(?!lr_scheduler\Z|swa_utils\Z)\w+)"
)
LOWER_CASE_CLASSES = re.compile(r"functools\.partial|itertools\.\w+")
# What `add_safe_globals` needs the name of, since the object says another one than the file, or
# none: functions of C, constants, what moves from release to release of numpy and Python, and what
# torch 1.12 and older name otherwise.
NAMED = re.compile(
    r"builtins\.(?:Ellipsis|NotImplemented)|functools\.reduce|io\.\w+|pathlib\.\w+"
    r"|numpy\.(?:core|_core|ma|rec|matrixlib)\..*|numpy\.(?:recarray|record)"
    r"|torch\.[a-z_]\w*|torch\.nn\.functional\.\w+"
    r"|torch\.(?:nn\.(?:intrinsic|qat|quantizable|quantized)|quantization)\..*"
)
