"""A trace leaves no trace: everything about a model and the process is what it was."""

import argparse
import array
import collections
import enum
import functools
import queue
import random
import threading
import types
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from modtool.live.inputs import parse_inputs
from modtool.live.losses import find_loss
from modtool.live.trace import Request, trace
from modtool.traces import Trace


class Busy(nn.Module):
    """Changes whatever a forward pass can change."""

    calls = 0
    scratch: torch.Tensor
    ema: torch.Tensor

    def __init__(self, real: bool, fails: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 4)
        self.hidden = [nn.BatchNorm1d(4)]
        self.register_buffer("ema", torch.zeros(4))
        self.scratch = torch.ones(4)
        self.history: list[object] = []
        self.options = {"deep": [1, 2]}
        self.step = 0
        self.real = real
        self.fails = fails

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).calls += 1
        self.step += 1
        self.history.append(x)
        self.options["deep"].append(3)
        self.ema.mul_(0.9).add_(x.detach().mean(0))
        self.scratch.add_(1)
        self.late = nn.Linear(4, 4)
        self.drop.train(not self.drop.training)
        self.frozen.weight.requires_grad_(True)
        with torch.no_grad():
            self.head.weight.add_(1)
            self.head.bias.data.zero_()
        x = self.hidden[0](self.norm(x)) + random.random() + float(np.random.rand())
        x = self.head(self.frozen(torch.nn.functional.dropout(x)))
        if self.real:
            x.sum().item()
        if self.fails:
            raise ValueError("late")
        return x


def state(model: Busy) -> dict[str, object]:
    """Everything about a model that a trace could disturb, as comparable values."""
    tensors = {**model.state_dict(), "scratch": model.scratch}
    tensors |= {f"hidden.{name}": each for name, each in model.hidden[0].state_dict().items()}
    return {
        "bytes": {name: each.numpy().tobytes() for name, each in tensors.items()},
        "identity": {name: id(each) for name, each in model.named_parameters()},
        "buffers": {name: id(each) for name, each in model.named_buffers()},
        "training": [module.training for module in model.modules()],
        "requires_grad": [each.requires_grad for each in model.parameters()],
        "grad": [None if each.grad is None else each.grad.tolist() for each in model.parameters()],
        "hooks": [
            (len(module._forward_hooks), len(module._forward_pre_hooks), list(vars(module)))
            for module in model.modules()
        ],
        "hook options": [
            (dict(module._forward_hooks_with_kwargs), dict(module._forward_hooks_always_called))
            for module in model.modules()
        ],
        "tensor hooks": [each._backward_hooks for each in model.parameters()],
        "attributes": (model.step, list(model.history), str(model.options)),
        "class": {name: id(value) for name, value in vars(Busy).items()},
        "nn.Module": {name: id(value) for name, value in vars(nn.Module).items()},
    }


def surroundings() -> list[object]:
    """What the process has that a forward pass could disturb."""
    numpy_state = np.random.get_state(legacy=True)
    return [
        random.getstate(),
        torch.get_rng_state().tolist(),
        [str(part) for part in numpy_state],
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.get_default_dtype(),
        len(nn.modules.module._global_forward_hooks),
    ]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_changed(mode: str, backward: bool, real: bool, fails: bool) -> None:
    model = Busy(real, fails)
    model.norm.eval()
    model.head.weight.grad = torch.full((4, 4), 7.0)
    model.head.register_forward_hook(lambda *_: None)
    inputs = parse_inputs(["8,4"], model)
    before = state(model), surroundings()

    def run() -> Trace:
        return trace(model, inputs, mode=mode, backward=backward)

    first = run()
    assert (state(model), surroundings()) == before
    assert first.executed == ("real" if real or fails or backward else "fake")
    assert (first.error is not None) is fails
    assert run() == first


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_passes_and_leaves_nothing_behind() -> None:
    model = Busy(real=False, fails=False)
    before = state(model), surroundings()
    stop: Callable[..., None] = lambda *_: interrupt()  # noqa: E731
    handle = model.head.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        trace(model, parse_inputs(["8,4"], model))
    handle.remove()
    assert (state(model), surroundings()) == before


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_lazy_modules_stay_lazy() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d())
    before = repr(model)
    result = trace(model, parse_inputs(["2,3"], model), mode="train")
    assert result.parameters == 16 + 8
    assert repr(model) == before
    assert [type(each).__name__ for each in model] == ["LazyLinear", "LazyBatchNorm1d"]
    assert type(model[0].weight).__name__ == "UninitializedParameter"


def test_a_pass_with_real_batch_norm_in_train_mode_keeps_its_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    model.register_forward_hook(lambda module, args, output: output.sum().item() and None)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    result = trace(model, parse_inputs(["5,3"], model), mode="train")
    assert (result.executed, result.error) == ("real", None)
    for name, each in model.state_dict().items():
        assert torch.equal(each, before[name])


def test_what_numpy_writes_is_undone() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.weight.detach().numpy()[:] = 7
            return x * self.weight

    model = Writes()
    result = trace(model, parse_inputs(["2,3"], model))
    assert (result.error, result.executed) == (None, "real")
    assert model.weight.tolist() == [1, 1, 1]


def test_statistics_times_and_losses_change_nothing_either() -> None:
    model = Busy(real=False, fails=False)
    before = state(model), surroundings()
    loss = find_loss("mse_loss")
    request = Request(mode="train", backward=True, loss=loss, statistics=True, repeat=3)
    first = trace(model, parse_inputs(["8,4"], model), request=request)
    assert (first.error, first.executed) == (None, "real")
    assert (state(model), surroundings()) == before


class Meter:
    """Something of the user's that a model keeps."""

    def __init__(self) -> None:
        self.steps = 0
        self.total = torch.zeros(2)


class Holder(nn.Module):
    """Writes to whatever is not its own attribute."""

    seen: ClassVar[list[object]] = []
    counts: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 2)
        self.noise = torch.Generator().manual_seed(3)
        self.dice = random.Random(3)
        self.numbers = np.random.default_rng(3)
        self.last: deque[object] = deque([1], maxlen=2)
        self.meter = Meter()
        self.scale = torch.ones(4, requires_grad=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        self.counts["all"] = self.counts.get("all", 0) + 1
        self.last.append(x)
        self.meter.steps += 1
        self.meter.total += 1
        self.scale.requires_grad_(False)
        noise = torch.rand(2, generator=self.noise) + self.dice.random() + self.numbers.random()
        result: torch.Tensor = self.inner(x * self.scale) + noise
        return result


@pytest.mark.parametrize("statistics", [False, True])
def test_what_objects_classes_and_generators_hold_is_put_back(statistics: bool) -> None:
    model = Holder()
    dice, numbers = model.dice.getstate(), model.numbers.bit_generator.state
    noise = model.noise.get_state()

    def run() -> Trace:
        return trace(model, parse_inputs(["3,4"], model), statistics=statistics)

    first = run()
    assert (first.error, first.executed) == (None, "real" if statistics else "fake")
    assert run() == first
    assert (Holder.seen, Holder.counts) == ([], {})
    assert (list(model.last), model.meter.steps, model.meter.total.tolist()) == ([1], 0, [0, 0])
    assert model.scale.requires_grad
    assert (model.dice.getstate(), model.numbers.bit_generator.state) == (dice, numbers)
    assert torch.equal(model.noise.get_state(), noise)


@pytest.mark.parametrize("real", [False, True])
def test_gradients_that_are_added_to_or_zeroed_are_put_back(real: bool) -> None:
    class Adapts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad():
                self.inner(x).sum().backward()
            self.zero_grad(set_to_none=False)
            result: torch.Tensor = self.inner(x)
            return result

    model = Adapts()
    for each in model.parameters():
        each.grad = torch.full_like(each, 7.0)
    kept = [each.grad for each in model.parameters()]
    found = trace(model, parse_inputs(["3,4"], model), real=real)
    assert (found.error, found.executed) == (None, "real" if real else "fake")
    assert all(each.grad is grad for each, grad in zip(model.parameters(), kept, strict=True))
    assert [set(grad.flatten().tolist()) for grad in kept if grad is not None] == [{7.0}, {7.0}]


TABLE: dict[int, torch.Tensor] = {}
FIRST: torch.Tensor | None = None


@functools.cache
def ramp(size: int) -> torch.Tensor:
    return torch.arange(size).float()


def listed(size: int) -> torch.Tensor:
    return TABLE.setdefault(size, torch.ones(size))


def once(size: int) -> torch.Tensor:
    global FIRST
    if FIRST is None:
        FIRST = torch.ones(size)
    return FIRST


class Remembers(nn.Module):
    """Takes a tensor from a function that keeps it."""

    def __init__(self, source: Callable[[int], torch.Tensor]) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.source = source

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(x) * self.source(4)
        return result


@pytest.mark.parametrize("source", [ramp, listed, once])
def test_no_fake_tensor_stays_in_caches_and_global_variables(
    source: Callable[[int], torch.Tensor],
) -> None:
    model = Remembers(source)
    inputs = parse_inputs(["2,4"], model)
    assert (trace(model, inputs).error, trace(model, inputs).executed) == (None, "fake")
    found = trace(model, inputs, backward=True)  # a fake pass, then a real one
    assert (found.error, found.executed) == (None, "real")
    assert type(model(torch.ones(2, 4))) is torch.Tensor
    ramp.cache_clear()
    TABLE.clear()
    globals()["FIRST"] = None


STEPS = [0]
STEP = 0


def counter() -> Callable[[], int]:
    count = 0

    def counted() -> int:
        nonlocal count
        count += 1
        return count

    return counted


COUNTED = counter()


@functools.lru_cache
def first_step() -> int:
    return STEP


class Alternates(nn.Module):
    """Does more in every other pass, as counters at the top of a file have it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        global STEP
        STEP += 1
        STEPS[0] += 1
        steps = STEP + STEPS[0] + COUNTED() + first_step()
        for _ in range(steps):
            x = self.inner(x)
        return x


@pytest.mark.parametrize("real", [False, True])
def test_what_a_pass_leaves_at_the_top_of_a_file_is_put_back(real: bool) -> None:
    model = Alternates()
    inputs = parse_inputs(["2,4"], model)
    found = [trace(model, inputs, real=real) for _ in range(3)]
    assert [each.executed for each in found] == ["real" if real else "fake"] * 3
    assert [each.macs for each in found] == [4 * 2 * 4 * 4] * 3
    assert (STEPS, STEP) == ([0], 0)


def in_a_closure() -> Callable[[int], torch.Tensor]:
    table: dict[int, torch.Tensor] = {}
    return lambda size: table.setdefault(size, torch.ones(size))


def in_a_cell() -> Callable[[int], torch.Tensor]:
    kept: torch.Tensor | None = None

    def source(size: int) -> torch.Tensor:
        nonlocal kept
        if kept is None:
            kept = torch.ones(size)
        return kept

    return source


def in_an_empty_cell() -> Callable[[int], torch.Tensor]:
    kept = torch.ones(0)

    def source(size: int) -> torch.Tensor:
        nonlocal kept
        try:
            return kept
        except NameError:
            kept = torch.ones(size)
            return kept

    del kept
    return source


def in_a_cache() -> Callable[[int], torch.Tensor]:
    return functools.lru_cache(lambda size: torch.ones(size))


def in_a_default() -> Callable[[int], torch.Tensor]:
    def source(size: int, table: dict[int, torch.Tensor] = {}) -> torch.Tensor:  # noqa: B006
        return table.setdefault(size, torch.ones(size))

    return source


def in_a_function() -> Callable[[int], torch.Tensor]:
    def source(size: int) -> torch.Tensor:
        if not hasattr(source, "kept"):
            vars(source)["kept"] = torch.ones(size)
        kept: torch.Tensor = vars(source)["kept"]
        return kept

    return source


def in_a_partial() -> Callable[[int], torch.Tensor]:
    def source(table: dict[int, torch.Tensor], size: int) -> torch.Tensor:
        return table.setdefault(size, torch.ones(size))

    return functools.partial(source, {})


class Slotted:
    """Keeps a tensor in a slot."""

    __slots__ = ("kept",)
    kept: torch.Tensor

    def source(self, size: int) -> torch.Tensor:
        if not hasattr(self, "kept"):
            self.kept = torch.ones(size)
        return self.kept


def in_a_slot() -> Callable[[int], torch.Tensor]:
    return Slotted().source


class Cache:
    """Keeps a tensor as an attribute of the class, as two classes inside of it do."""

    kept: torch.Tensor | None = None

    class Scaled(torch.autograd.Function):
        kept: torch.Tensor | None = None

        @staticmethod
        def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
            return values * kept_by(Cache.Scaled, 4)

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * kept_by(Cache.Scaled, 4)

    class Kind(enum.Enum):
        ONES = 1


LOCAL = threading.local()
VARIABLE: ContextVar[torch.Tensor] = ContextVar("VARIABLE")


def kept_by(owner: Any, size: int) -> torch.Tensor:
    """The tensor that some object keeps; made where it keeps none."""
    if getattr(owner, "kept", None) is None:
        owner.kept = torch.ones(size)
    kept: torch.Tensor = owner.kept
    return kept


def in_a_class() -> Callable[[int], torch.Tensor]:
    return lambda size: kept_by(Cache, size)


def in_a_class_of_a_function() -> Callable[[int], torch.Tensor]:
    class Inner:
        kept = None

    return lambda size: kept_by(Inner, size)


def in_an_autograd_function() -> Callable[[int], torch.Tensor]:
    def source(size: int) -> torch.Tensor:
        scaled: torch.Tensor = Cache.Scaled.apply(torch.ones(size))  # type: ignore[no-untyped-call]
        return scaled

    return source


def in_an_enum() -> Callable[[int], torch.Tensor]:
    return lambda size: kept_by(Cache.Kind, size)


def in_a_thread_local() -> Callable[[int], torch.Tensor]:
    return lambda size: kept_by(LOCAL, size)


def in_a_context_variable() -> Callable[[int], torch.Tensor]:
    def source(size: int) -> torch.Tensor:
        if VARIABLE.get(None) is None:
            VARIABLE.set(torch.ones(size))
        return VARIABLE.get()

    return source


def with_methods() -> nn.Module:
    """A model whose methods keep tensors, in a class that no module's global variables have."""
    table: list[torch.Tensor] = []

    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        @property
        def scale(self) -> torch.Tensor:
            if not table:
                table.append(torch.ones(4))
            return table[0]

        @functools.cache  # noqa: B019
        def ramp(self) -> torch.Tensor:
            return torch.arange(4.0)

        @staticmethod
        @functools.lru_cache
        def shift(size: int) -> torch.Tensor:
            return torch.ones(size)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x) * self.scale + self.ramp() + self.shift(4)
            return result

    return Remembering()


def with_a_hook() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4))
    source = in_a_closure()
    model[0].register_forward_hook(lambda module, args, output: output * source(4))
    return model


SOURCES = (
    in_a_closure,
    in_a_cell,
    in_an_empty_cell,
    in_a_cache,
    in_a_default,
    in_a_function,
    in_a_partial,
    in_a_slot,
    in_a_class,
    in_a_class_of_a_function,
    in_an_autograd_function,
    in_an_enum,
    in_a_thread_local,
    in_a_context_variable,
)


@pytest.mark.parametrize("make", [*SOURCES, with_methods, with_a_hook])
def test_no_fake_tensor_stays_in_what_a_function_keeps(make: Callable[[], Any]) -> None:
    made = make()
    model = made if isinstance(made, nn.Module) else Remembers(made)
    inputs = parse_inputs(["2,4"], model)
    found = trace(model, inputs)
    assert (found.error, found.executed) == (None, "fake")
    output = model(torch.ones(2, 4))
    assert type(output) is torch.Tensor
    assert trace(model, inputs, backward=True).error is None
    assert torch.equal(model(torch.ones(2, 4)), output)


@pytest.mark.parametrize("real", [False, True])
def test_tensors_of_classes_and_closures_that_are_written_over_are_put_back(real: bool) -> None:
    steps = torch.zeros(4)

    class Counts(nn.Module):
        total = torch.zeros(4)

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x) * steps.add_(1) * self.total.add_(1)
            return result

    model = Counts()
    found = trace(model, parse_inputs(["2,4"], model), real=real)
    assert (found.error, found.executed) == (None, "real" if real else "fake")
    assert (steps.tolist(), model.total.tolist()) == ([0] * 4, [0] * 4)


class Counted:
    """Something of the user's with an array."""

    def __init__(self) -> None:
        self.seen = np.zeros(2)


@pytest.mark.parametrize("real", [False, True])
def test_arrays_that_are_written_over_are_put_back(real: bool) -> None:
    class Counts(nn.Module):
        total = np.zeros(2, np.int64)

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.steps = np.zeros((), np.int32)
            self.tables = {"a": np.zeros((2, 3), order="F")[:, ::2]}
            self.last = np.array([None, "x"])
            self.counted = Counted()
            self.fixed = np.arange(3)
            self.fixed.flags.writeable = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total += 1
            self.steps += 1
            self.tables["a"][0, 1] = 5
            self.last[0] = x
            self.counted.seen[:] = 3
            result: torch.Tensor = self.inner(x) * float(self.steps)
            return result

    model = Counts()

    def arrays() -> list[tuple[int, object]]:
        inside = (*model.tables.values(), model.counted.seen)
        found: list[Any] = [model.total, model.steps, model.last, *inside]
        return [(id(each), each.tolist()) for each in found]

    before = arrays()
    found = trace(model, parse_inputs(["2,4"], model), real=real)
    assert (found.error, found.executed) == (None, "real" if real else "fake")
    assert arrays() == before


class Keeps(nn.Module):
    """Keeps what it computes in objects of Python's library."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.space = types.SimpleNamespace(last=None, deep=argparse.Namespace(steps=0))
        self.table: collections.UserDict[str, object] = collections.UserDict(a=1)
        self.chain = collections.ChainMap[str, object]({})
        self.queue = queue.Queue[object]()
        self.codes = array.array("i", [1, 2])
        self.flags = bytearray(b"ab")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        if self.space.last is None:
            self.space.last = x
        self.space.deep.steps += 1
        self.table["b"] = self.chain["b"] = x
        self.queue.put(x)
        self.codes[0] = 5
        self.codes.append(3)
        self.flags[:] = b"c"
        result: torch.Tensor = x + self.space.last
        return result


@pytest.mark.parametrize("real", [False, True])
def test_what_objects_of_libraries_hold_is_put_back(real: bool) -> None:
    model = Keeps()
    found = trace(model, parse_inputs(["2,4"], model), real=real)
    assert (found.error, found.executed) == (None, "real" if real else "fake")
    assert str(model.space) == "namespace(last=None, deep=Namespace(steps=0))"
    assert (dict(model.table), dict(model.chain), model.queue.qsize()) == ({"a": 1}, {}, 0)
    assert (model.codes.tolist(), bytes(model.flags)) == ([1, 2], b"ab")
    assert type(model(torch.ones(2, 4))) is torch.Tensor


class Unbound:
    """A proxy of what is not there yet."""

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        raise RuntimeError("working outside of a request")


UNBOUND = Unbound()


def test_an_object_without_readable_attributes_is_passed_over() -> None:
    model = nn.Linear(4, 4)
    assert trace(model, parse_inputs(["2,4"], model)).error is None


class Keeper:
    """Something of the user's that keeps a module."""

    def __init__(self) -> None:
        self.norm = nn.BatchNorm1d(4)


@pytest.mark.parametrize("real", [False, True])
def test_a_module_that_an_object_keeps_is_put_back(real: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.keeper = Keeper()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.keeper.norm.eval()
            self.keeper.norm.train()
            result: torch.Tensor = self.keeper.norm(self.inner(x))
            return result

    model = Net()
    norm = model.keeper.norm.eval()
    before = {
        name: (id(each), each.tolist()) for name, each in norm.state_dict(keep_vars=True).items()
    }
    found = trace(model, parse_inputs(["3,4"], model), real=real, mode="train")
    assert (found.error, found.executed) == (None, "real" if real else "fake")
    now = {
        name: (id(each), each.tolist()) for name, each in norm.state_dict(keep_vars=True).items()
    }
    assert (now, norm.training) == (before, False)
