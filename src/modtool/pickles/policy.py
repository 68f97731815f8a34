"""What is known of the callables that a pickle asks for: ordinary, known to execute code, unknown.

A name is judged as it would be imported. Nothing is ordinary because of where it lies alone:
`torch.serialization.os.system` is a name inside torch, too.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from modtool.pickles.symbols import Global
from modtool.records import DTYPES, Severity

__all__ = ["MOVED", "imported", "imported_name", "in_module", "severity_of", "words"]


# -- names ---------------------------------------------------------------------------------------


def imported_name(symbol: Global, protocol: int) -> str:
    """The qualified name that a real load imports."""
    return ".".join(imported(symbol, protocol))


def imported(symbol: Global, protocol: int) -> tuple[str, str]:
    """Module and name that a real load imports: below protocol 3, Python 2's names are mapped.

    Source: `Unpickler.find_class` and `_compat_pickle` of Python 3.11.
    """
    if protocol < 3:
        from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

        known = NAME_MAPPING.get((symbol.module, symbol.name))
        if known is not None:
            return known
        return IMPORT_MAPPING.get(symbol.module, symbol.module), symbol.name
    return symbol.module, symbol.name


def severity_of(name: str, *, called: bool = True) -> Severity:
    """How a qualified name is judged.

    Args:
        name: As it would be imported: `builtins.eval`, `torch.nn.modules.linear.Linear`.
        called: False for what is imported, and never called.
    """
    if executes_code(name):
        return "executes-code"
    ordinary = name in ORDINARY or any(pattern.fullmatch(name) for pattern in ORDINARY_CLASSES)
    if not called:
        ordinary = ordinary or any(pattern.fullmatch(name) for pattern in ORDINARY_MENTIONS)
    return "ordinary" if ordinary else "unknown-callable"


def executes_code(name: str) -> bool:
    """True for a name in `EXECUTES`, in one of those modules, or reached through another module."""
    if name in EXECUTES:
        return True
    parts = name.split(".")
    heads = (".".join(parts[:end]) for end in range(1, len(parts)))
    if any(head in EXECUTING_MODULES for head in heads):
        return True
    # `torch.serialization` has an attribute `os`; protocol 4 lets a name walk along it.
    return not REACHABLE.isdisjoint(parts[1:-1])


# -- known to execute code -----------------------------------------------------------------------


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def in_module(module: str, names: str) -> Iterable[str]:
    """Qualified names from a module and bare names."""
    return (f"{module}.{name}" for name in names.split())


# Modules of which every callable counts: they run commands, compile or import code, reach files or
# the network, or change what the program does.
EXECUTING_MODULES = words(
    """
    os posix nt posixpath ntpath subprocess _posixsubprocess pty shutil sys signal ctypes _ctypes
    cffi mmap fcntl resource
    importlib imp runpy zipimport pkgutil pkg_resources site pip setuptools distutils ensurepip venv
    code codeop pdb bdb cProfile profile trace timeit doctest unittest pydoc lib2to3 idlelib
    atexit threading _thread concurrent multiprocessing asyncio
    pickle _pickle cPickle dill cloudpickle joblib marshal shelve
    socket _socket ssl http urllib ftplib smtplib poplib imaplib nntplib telnetlib socketserver
    xmlrpc webbrowser antigravity requests httpx aiohttp paramiko fabric
    tempfile glob fileinput zipfile tarfile gzip bz2 lzma sqlite3 dbm io _io
    logging.config numpy.f2py numpy.distutils numpy.testing numpy.ctypeslib
    torch.hub torch.package torch.utils.cpp_extension torch.utils.model_zoo torch.utils.bottleneck
    torch.multiprocessing torch.distributed.rpc torch.distributed.launcher torch.distributed.run
    torch.distributed.elastic torch._inductor
    """
)

EXECUTES = frozenset(
    (
        *in_module(
            "builtins",
            "eval exec compile execfile open input breakpoint __import__ getattr setattr delattr "
            "globals locals vars dir apply reload help exit quit",
        ),
        *in_module("operator", "attrgetter methodcaller itemgetter call"),
        *in_module("_operator", "attrgetter methodcaller itemgetter call"),
        *in_module("functools", "partial partialmethod reduce cached_property singledispatch"),
        *in_module("_functools", "partial reduce"),
        *in_module("types", "FunctionType LambdaType CodeType MethodType ModuleType DynamicClass"),
        *in_module("itertools", "starmap accumulate"),
        *in_module("codecs", "open lookup EncodedFile StreamReaderWriter"),
        *in_module("numpy", "load save fromfile memmap loadtxt genfromtxt savetxt"),
        *in_module("torch", "load save compile from_file"),
        *in_module("torch.serialization", "load save _load _legacy_load"),
        *in_module("torch.jit", "load script trace"),
        *in_module("torch.jit._serialization", "load save"),
        *in_module("torch.export", "load save"),
        *in_module("torch.storage", "_load_from_bytes"),
        *in_module("torch.storage.UntypedStorage", "from_file _new_with_file"),
        *in_module("torch._utils_internal", "get_file_path"),
        *in_module("torch.ops", "load_library"),
        *in_module(
            "torch.fx.graph_module",
            "reduce_graph_module reduce_package_graph_module reduce_deploy_graph_module "
            "_forward_from_src _exec_with_source _deserialize_graph_module _method_from_src",
        ),
        *in_module("torch.jit._script", "unpackage_script_module"),
        *in_module("torch.fx._symbolic_trace", "Tracer symbolic_trace"),
        *in_module("pandas", "read_pickle eval"),
        *in_module("pandas.io.pickle", "read_pickle"),
    )
)

# What a dotted name may walk through on its way: the modules that other modules import, and what
# leads from any object to the interpreter's insides.
REACHABLE = words(
    "os posix sys subprocess shutil pickle importlib ctypes builtins __builtins__ tempfile socket "
    "urllib marshal __globals__ __code__ __class__ __subclasses__ __loader__ __spec__"
)


# -- ordinary ------------------------------------------------------------------------------------

REBUILDS = (
    "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter "
    "_rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor "
    "_rebuild_sparse_csr_tensor _rebuild_nested_tensor _rebuild_meta_tensor_no_storage "
    "_rebuild_wrapper_subclass _rebuild_device_tensor_from_cpu_tensor "
    "_rebuild_device_tensor_from_numpy _rebuild_xla_tensor _rebuild_mlc_tensor"
)
PATHS = "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath"
CONTAINERS = (
    "list tuple dict set frozenset bytes bytearray str int float bool complex slice range object"
)
TENSOR_PREFIXES = tuple(
    dtype.storage.removesuffix("Storage") for dtype in DTYPES.values() if dtype.storage
)
SCHEMES = tuple(
    f"torch.per_{part}"
    for part in (
        "tensor_affine",
        "tensor_symmetric",
        "channel_affine",
        "channel_symmetric",
        "channel_affine_float_qparams",
    )
)

OLD_PLACEMENTS = "torch.distributed._tensor.placement_types"
NEW_PLACEMENTS = "torch.distributed.tensor.placement_types"
GRAD_SCALER = "_refresh_per_optimizer_state OptState"
# Where today's Python and torch have what older or newer ones name otherwise: DTensors of torch 2.0
# to 2.4, gradient scalers until 2.2, attention of 1.5 to 1.8, paths of Python 3.13.
MOVED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        f"{old}.{name}": (new, name)
        for old, new, names in (
            ("pathlib._local", "pathlib", PATHS),
            ("torch.cuda.amp.grad_scaler", "torch.amp.grad_scaler", GRAD_SCALER),
            ("torch.distributed._tensor.api", "torch.distributed.tensor", "DTensor"),
            (
                "torch.distributed._tensor.device_mesh",
                "torch.distributed.device_mesh",
                "DeviceMesh",
            ),
            ("torch.distributed.tensor._api", "torch.distributed.tensor", "DTensor"),
            (OLD_PLACEMENTS, NEW_PLACEMENTS, "Partial Placement Replicate Shard _StridedShard"),
            (OLD_PLACEMENTS, "torch.distributed.tensor._dtensor_spec", "DTensorSpec TensorMeta"),
        )
        for name in names.split()
    }
    | {
        f"{OLD_PLACEMENTS}._Partial": (NEW_PLACEMENTS, "Partial"),
        "torch.nn.modules.linear._LinearWithBias": (
            "torch.nn.modules.linear",
            "NonDynamicallyQuantizableLinear",
        ),
    }
)

ORDINARY = frozenset(
    (
        *in_module("collections", "OrderedDict defaultdict Counter deque"),
        *in_module("builtins", CONTAINERS),
        *in_module("builtins", "Ellipsis NotImplemented"),
        *in_module("copyreg", "_reconstructor __newobj__ __newobj_ex__"),
        "_codecs.encode",
        *in_module("numpy", "dtype ndarray"),
        *(
            f"numpy.{core}.multiarray.{name}"
            for core in ("core", "_core")
            for name in ("scalar", "_reconstruct")
        ),
        *in_module("numpy._core.numeric", "_frombuffer"),
        *in_module("numpy.core.numeric", "_frombuffer"),
        *in_module("argparse", "Namespace"),
        *in_module("types", "SimpleNamespace"),
        *in_module("pathlib", PATHS),
        *in_module("datetime", "datetime date time timedelta timezone"),
        *in_module("torch", "Size device Tensor dtype"),
        "torch.torch_version.TorchVersion",
        *(f"torch.{name}" for name in DTYPES),
        *SCHEMES,
        *in_module("torch._utils", REBUILDS),
        *in_module("torch._tensor", "Tensor _rebuild_from_type _rebuild_from_type_v2"),
        *in_module("torch.serialization", "_get_layout"),
        *in_module("torch.storage", "UntypedStorage TypedStorage _UntypedStorage _TypedStorage"),
        *(f"torch.{name}" for name in ("UntypedStorage", "TypedStorage", "ScriptObject")),
        *(
            f"torch.{room}{name}{kind}"
            for room in ("", "cuda.", "sparse.", "cuda.sparse.")
            for name in TENSOR_PREFIXES
            for kind in ("Storage", "Tensor")
        ),
        *in_module(
            "torch.nn.parameter",
            "Parameter Buffer UninitializedParameter UninitializedBuffer UninitializedTensorMixin",
        ),
        *in_module("torch.autograd.variable", "Variable"),
        "torch.nn.backends.thnn._get_thnn_function_backend",
        *in_module("torch.distributed.tensor", "DTensor"),
        *MOVED,
        *in_module(
            "torch.distributed.tensor._dtensor_spec", "DTensorSpec TensorMeta ShardOrderEntry"
        ),
        *in_module(
            "torch.distributed.tensor.placement_types", "Partial Replicate Shard _StridedShard"
        ),
        *in_module("torch.distributed.device_mesh", "DeviceMesh"),
        *in_module("torch.distributed._mesh_layout", "_MeshLayout _FlatLayout"),
        *in_module("torch.nested._internal.nested_tensor", "NestedTensor _rebuild_njt"),
        *in_module("torch._dynamo.decorators", "_DimRange"),
        *in_module("torch._dynamo.eval_frame", "OptimizedModule"),
        *in_module(
            "torch.distributed.checkpoint.metadata",
            "Metadata TensorStorageMetadata BytesStorageMetadata ChunkStorageMetadata "
            "TensorProperties MetadataIndex StorageMeta _MEM_FORMAT_ENCODING",
        ),
        *in_module(
            "torch.distributed.checkpoint.filesystem", "_StorageInfo _StoragePrefix StorageMeta"
        ),
        *in_module("torch.jit._pickle", "build_intlist build_tensorlist build_doublelist"),
        *in_module("torch.jit._pickle", "build_boollist build_tensor_from_id restore_type_tag"),
    )
)

# Classes of torch itself that a full-model save, a pickled optimizer or scheduler is made of. What
# is made of them is an object with its attributes, no more.
ORDINARY_CLASSES = tuple(
    re.compile(pattern)
    for pattern in (
        r"torch\.nn\.modules\.\w+\.[A-Z_]\w*",
        r"torch\.(?:ao\.)?nn\.(?:quantized|quantizable|intrinsic|qat|sparse)\.(?:\w+\.)+[A-Z]\w*",
        r"torch\.nn\.parallel\.(?:data_parallel\.DataParallel|distributed\.\w+)",
        r"torch\.nn\.utils\.(?:weight_norm\.WeightNorm|spectral_norm\.SpectralNorm\w*)",
        r"torch\.nn\.utils\.prune\.[A-Z]\w*",
        r"torch\.nn\.attention\.\w+\.[A-Z]\w*",
        r"torch\.(?:ao\.)?quantization\.(?:observer|fake_quantize|stubs|qconfig)\.[A-Z]\w*",
        r"torch\.optim\.(?:\w+\.)?[A-Z]\w*",
        r"torch\.(?:cuda\.)?amp\.grad_scaler\.\w+",
        # Classes that a TorchScript archive defines itself, and packed weights of torch's own.
        r"__torch__\.(?!torch\.classes\.).*",
        r"__torch__\.torch\.classes\.(?:quantized|sparse|rnn|xnnpack|mkldnn)\.\w+",
    )
)

# What such objects only mention: an activation function kept as an attribute, an enumeration.
ORDINARY_MENTIONS = tuple(
    re.compile(pattern)
    for pattern in (
        r"torch\.nn\.functional\.\w+",
        r"torch\._C\._nn\.\w+",
        r"torch\.(?:relu|sigmoid|tanh|strided|contiguous_format|preserve_format|sparse_coo)",
    )
)
