"""`ParameterList` and `ParameterDict`, which print a line for each thing that they hold."""

from collections.abc import Callable, Iterable

from modtool.errors import CorruptFileError
from modtool.pickles.nn_settings.language import View, printed
from modtool.pickles.plain import mapping_of
from modtool.pickles.symbols import ABSENT, Call, Global, PersistentId
from modtool.pickles.torch_objects import StorageId, TensorFacts, Tensors
from modtool.records import DTYPES, Storage

__all__ = ["parameter_dict", "parameter_list"]


def parameter_list(view: View) -> str:
    """A line for each item: `  (0): Parameter containing: [torch.float32 of size 2x3]`."""
    parameters = view.members("_parameters")
    size = view.attributes.get("_size", len(parameters))  # torch before 1.12 held nothing else
    most = len(parameters) + len(view.attributes)
    count = min(size, most) if isinstance(size, int) else 0
    return lines(view, map(str, range(count)), lambda facts: f"torch.{facts.dtype}")


def parameter_dict(view: View) -> str:
    """A line for each item: `  (a): Parameter containing: [torch.FloatTensor of size 2x3]`."""
    held = mapping_of(view.attributes.get("_keys"))
    return lines(view, view.members("_parameters") if held is None else held, type_name)


def lines(view: View, keys: Iterable[object], kind: Callable[[TensorFacts], str]) -> str:
    """One line for each key that can be told of."""
    parameters = view.members("_parameters")
    held: dict[object, object] = {**view.members("_modules"), **view.members("_buffers")}
    held.update(parameters)
    held.update(view.attributes)
    tensors = Tensors(storage_of)
    found: list[str] = []
    for key in keys:
        holder = "Parameter" if key in parameters else "Tensor"
        name, text = printed(key), item_text(held.get(key, ABSENT), holder, tensors, kind)
        if name and text:
            found.append(f"  ({name}): {text}")
    return "\n".join(found)


def item_text(
    value: object, holder: str, tensors: Tensors, kind: Callable[[TensorFacts], str]
) -> str | None:
    """What is said of one item; None where that cannot be known."""
    try:
        facts = tensors.facts(value)
    except (CorruptFileError, LookupError, AttributeError, RecursionError):
        return None
    if facts is None:
        name = type_of(value)
        return f"Object of type: {name}" if name else None
    size = "x".join(map(str, facts.shape))
    device = device_of(facts)
    place = f" ({device})" if device.startswith("cuda") else ""
    return f"{holder} containing: [{kind(facts)} of size {size}{place}]"


def storage_of(identifier: StorageId) -> Storage:
    """A storage of which no more than its place and size matter."""
    return Storage(identifier.key, identifier.nbytes, identifier.location)


def device_of(facts: TensorFacts) -> str:
    """`cpu`, `cuda:0`, `meta`."""
    if facts.device is not None:
        return facts.device
    return facts.storage.location if facts.storage else "cpu"


def type_name(facts: TensorFacts) -> str:
    """What `Tensor.type()` says: `torch.FloatTensor`, `torch.cuda.UInt16Tensor`."""
    storage = DTYPES[facts.dtype].storage
    name = storage.removesuffix("Storage") or facts.dtype.capitalize().replace("Uint", "UInt")
    place = device_of(facts).partition(":")[0]
    return f"torch.{name}Tensor" if place == "cpu" else f"torch.{place}.{name}Tensor"


# Protocols 0 and 1 make an object so.
RECONSTRUCTORS = frozenset({"copyreg._reconstructor", "copy_reg._reconstructor"})


def type_of(value: object) -> str | None:
    """The name of a value's type; None where the pickle does not tell."""
    if isinstance(value, Call):
        made = value.arguments[0] if value.callee in RECONSTRUCTORS and value.arguments else None
        name = made.name if isinstance(made, Global) else value.callee
        return name.rpartition(".")[2] if made is not None or value.how == "new" else None
    if value is ABSENT or isinstance(value, Global | PersistentId):
        return None
    return type(value).__name__
