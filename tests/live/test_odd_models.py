"""Models that do what one does not expect of a forward pass."""

import copy
import ctypes
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.checkpoint import checkpoint

from modtool.live.fake import fake_mode, fake_tensors_only
from modtool.live.inputs import parse_inputs
from modtool.live.trace import trace
from modtool.traces import Trace


class Around(nn.Module):
    """A linear layer of four to four, and what a function does with it."""

    def __init__(self, function: Callable[[nn.Module, torch.Tensor], object]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: torch.Tensor) -> object:
        return self.function(self.layer, x)


def traced(model: nn.Module, *shapes: str, **options: Any) -> Trace:
    """A trace that ran to its end, twice with the same answer."""
    found = trace(model, parse_inputs(shapes, model), **options)
    assert found == trace(model, parse_inputs(shapes, model), **options)
    assert found.error is None
    return found


def calls(found: Trace) -> list[tuple[str, int, int, int]]:
    """Path, number, depth and MACs of every call."""
    return [(each.path, each.call, each.depth, each.macs) for each in found.calls]


class Parallel(nn.Module):
    """Four layers, each in a thread of a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)) for _ in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with ThreadPoolExecutor(2) as pool:
            return torch.cat(list(pool.map(lambda layer: layer(x), self.layers)))


def test_calls_in_threads_are_counted_and_have_their_place() -> None:
    model = Parallel()
    found = trace(model, parse_inputs(["2,4"], model), real=True)
    assert (found.error, found.macs, found.never_called) == (None, 4 * 2 * (12 + 6), ())
    sequences = {call.path: call for call in found.calls if call.type == "Sequential"}
    assert {path: (call.depth, call.macs) for path, call in sequences.items()} == {
        f"layers.{index}": (1, 36) for index in range(4)
    }
    assert {call.depth for call in found.calls if call.type != "Sequential"} == {2}


def test_a_failure_in_a_thread_is_found() -> None:
    model = Parallel()
    model.layers[3] = nn.Linear(5, 2)
    found = trace(model, parse_inputs(["2,4"], model), real=True)
    assert found.error is not None
    assert (found.error.path, found.error.type) == ("layers.3", "Linear")


def copying(layer: nn.Module, x: torch.Tensor) -> object:
    """Copies a layer where torch keeps weak references to what constants are stored in."""
    x = layer(x * torch.tensor(2.0))
    return copy.deepcopy(layer)(x) + torch.tensor([1.0, 2.0, 3.0, 4.0])


def test_a_copy_that_is_made_under_way_has_no_row_and_is_counted() -> None:
    model = Around(copying)
    for _ in range(5):
        found = traced(model, "2,4")
        assert (found.executed, found.macs) == ("fake", 64)
        assert calls(found) == [("layer", 1, 1, 32)]
    assert not model.layer._forward_hooks


@pytest.mark.parametrize("mode", [fake_mode(), FakeTensorMode()])
def test_a_copy_of_a_fake_tensor_belongs_to_its_mode(mode: FakeTensorMode) -> None:
    with fake_tensors_only(mode):
        tensor, constant = torch.zeros(3), torch.tensor([1.0, 2.0])
    for each in (tensor, constant):
        assert isinstance(each, FakeTensor)
        copied = copy.deepcopy(each)
        assert isinstance(copied, FakeTensor)
        assert (copied is each, copied.fake_mode is mode) == (False, True)


@pytest.mark.parametrize(
    "address",
    [
        lambda x: ctypes.memset(x.data_ptr(), 0, 4),
        lambda x: ctypes.memset(x.untyped_storage().data_ptr(), 0, 4),
        lambda x: np.from_dlpack(x).sum(),
        lambda x: torch.utils.dlpack.from_dlpack(x).sum(),
    ],
)
def test_who_asks_for_an_address_gets_real_bytes(
    address: Callable[[torch.Tensor], object],
) -> None:
    kept = [vars(kind).get("data_ptr") for kind in (FakeTensor, torch.UntypedStorage)]
    found = traced(Around(lambda layer, x: (address(x), layer(x))[1]), "2,4")
    assert (found.executed, found.macs) == ("real", 32)
    assert [each.code for each in found.notes] == ["ran-for-real"]
    assert [vars(kind).get("data_ptr") for kind in (FakeTensor, torch.UntypedStorage)] == kept


def test_a_model_that_calls_itself() -> None:
    class Recursive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, more: int = 2) -> object:
            return self(self.layer(x), more - 1) if more else x

    assert calls(traced(Recursive(), "2,4")) == [
        ("layer", 1, 1, 32),
        ("", 2, 1, 32),
        ("layer", 2, 2, 32),
        ("", 3, 2, 0),
    ]


def test_a_generator_that_another_module_consumes() -> None:
    rows = Around(lambda layer, x: (layer(x) for _ in range(3)))
    model = nn.Sequential(rows, Around(lambda layer, x: sum(x)))
    found = traced(model, "2,4")
    # The layer runs when its rows are asked for, which the second module does.
    assert [call[:3] for call in calls(found)] == [
        ("0", 1, 1),
        ("1", 1, 1),
        *(("0.layer", number, 2) for number in (1, 2, 3)),
    ]
    assert (found.macs, found.never_called) == (96, ("1.layer",))


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_checkpoint_runs_again_is_no_call(reentrant: bool, real: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))

        def forward(self, x: torch.Tensor) -> object:
            return checkpoint(self.block, x.requires_grad_(), use_reentrant=reentrant)

    model = Checkpointed()
    found = traced(model, "2,4", backward=True, real=real)
    assert [call[:2] for call in calls(found)] == [
        ("block", 1),
        ("block.0", 1),
        ("block.1", 1),
        ("block.2", 1),
    ]
    assert (found.macs, found.unused) == (2 * 16 + 2 * 12, ())
    assert found.parameter_gradients == {
        "block.0.weight": (4, 4),
        "block.0.bias": (4,),
        "block.2.weight": (3, 4),
        "block.2.bias": (3,),
    }
    assert all(each.grad is None for each in model.parameters())


def compiled(model: nn.Module, backend: str | Callable[..., object]) -> nn.Module:
    """A model for one of torch's compilers."""
    compiler: Any = torch.compile
    made: nn.Module = compiler(model, backend=backend)
    return made


def test_a_compiled_module_is_one_around_its_own() -> None:
    model = nn.Sequential(compiled(nn.Linear(4, 4), "eager"))
    assert calls(traced(model, "2,4")) == [("0", 1, 1, 32), ("0._orig_mod", 1, 2, 32)]


def test_what_is_compiled_is_timed_as_a_whole() -> None:
    model = nn.Sequential(compiled(nn.Sequential(nn.Linear(4, 4)), "eager"), nn.Linear(4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = trace(model, parse_inputs(["2,4"], model), repeat=2)
    assert (found.error, found.executed, found.seconds is None) == (None, "real", False)
    assert [(call.path, call.seconds is None) for call in found.calls] == [
        ("0", False),
        ("0._orig_mod", True),
        ("0._orig_mod.0", True),
        ("1", False),
    ]


def test_what_fails_in_the_compiler_alone_is_a_failure() -> None:
    def broken(graph: object, inputs: object) -> Callable[..., object]:
        raise ValueError("no compiler here")

    model = compiled(nn.Linear(4, 4), broken)
    assert traced(model, "2,4").macs == 32
    found = trace(model, parse_inputs(["2,4"], model), repeat=1)
    assert found.error is not None
    assert "no compiler here" in found.error.message


class Thrice(nn.Module):
    """One layer, three times of the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layer(x) + self.layer(x) + self.layer(x)
        return made


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("real", [True, False])
def test_equal_calls_of_torchscript_are_counted_each(how: str, real: bool) -> None:
    jit: Any = torch.jit
    x = torch.ones(2, 4)
    model = jit.script(Thrice()) if how == "script" else jit.trace(Thrice(), x)
    assert traced(model, "2,4", real=real).macs == 3 * 2 * 16
    found = trace(model, parse_inputs(["2,4"], model), repeat=1)
    assert (found.error, found.seconds is None, found.calls) == (None, False, ())
    assert torch._C._get_graph_executor_optimize()


def test_flex_attention_counts_as_attention() -> None:
    class Flex(nn.Module):
        def forward(self, x: torch.Tensor) -> object:
            return flex_attention(x, x, x)

    assert traced(Flex(), "1,2,16,8").macs == 2 * (2 * 16 * 16 * 8)


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_tensors(layout: torch.layout) -> None:
    def nested(layer: nn.Module, x: torch.Tensor) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return layer(torch.nested.nested_tensor([x[0], x[1, :2]], layout=layout))

    found = traced(Around(nested), "2,3,4", backward=True)
    assert (found.executed, found.macs, found.uncounted) == ("real", 5 * 16, ())
    assert [each.shape for each in found.outputs] == [(2, -1, 4)]
    # Each of the five rows adds one to the gradient of each element of the bias.
    assert found.gradient_norms is not None
    assert found.gradient_norms["layer.bias"] == 10.0


def test_a_hook_that_changes_what_a_module_gives() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    handle = model[0].register_forward_hook(lambda module, given, made: torch.cat([made, made]))
    (call,) = traced(model, "2,4").calls
    assert [each.shape for each in call.outputs] == [(4, 4)]
    assert list(model[0]._forward_hooks) == [handle.id]


def test_a_forward_pass_that_changes_what_is_torchs() -> None:
    def meddling(layer: nn.Module, x: torch.Tensor) -> object:
        torch.manual_seed(5)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return layer(x)

    model = Around(meddling)
    state = torch.get_rng_state()
    traced(model, "2,4")
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == (torch.float32, True)
