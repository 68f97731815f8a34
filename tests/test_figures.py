"""The figures of modules against the totals of what lies below each of them."""

from hypothesis import given
from hypothesis import strategies as some

from modtool.records import ModuleNode, Storage, TensorInfo
from modtool.report.columns import COLUMNS
from modtool.report.figures import Figures, module_figures
from modtool.report.summary import MODULE_CELLS
from modtool.report.totals import totals_of

PATHS = ("", "a", "a.b", "a.b.c", "d")


@some.composite
def tensors(draw: some.DrawFn) -> TensorInfo:
    """A float32 vector somewhere in one of three storages of 40 bytes, or in none."""
    path = draw(some.sampled_from(PATHS))
    name = f"t{draw(some.integers(0, 99))}"
    size = draw(some.integers(0, 5))
    key = draw(some.sampled_from([None, "0", "1", "2"]))
    return TensorInfo(
        name=f"{path}.{name}" if path else name,
        dtype="float32",
        shape=(size,),
        storage=None if key is None else Storage(key, 40),
        offset=draw(some.integers(0, 5)),
        role=draw(some.sampled_from(["parameter", "buffer"])),
        requires_grad=draw(some.sampled_from([True, False, None])),
    )


@given(some.lists(tensors(), max_size=8))
def test_every_module_has_the_totals_of_what_lies_below_it(held: list[TensorInfo]) -> None:
    figures = module_figures([ModuleNode(path) for path in PATHS], held)
    for path in PATHS:
        inside = [each for each in held if each.name.startswith(f"{path}." if path else "")]
        own = [each for each in inside if each.name.rpartition(".")[0] == path]
        totals = totals_of(inside)
        assert figures[path] == Figures(
            totals.total, totals.trainable, totals_of(own).total, totals.bytes
        )


def test_every_column_of_modules_has_its_cell() -> None:
    assert list(MODULE_CELLS) == [column.key for column in COLUMNS["modules"]]


def test_a_view_that_covers_two_others_adds_nothing() -> None:
    storage = Storage("0", 8)
    held = [
        TensorInfo("a", "float32", (1,), storage, requires_grad=True),
        TensorInfo("b", "float32", (1,), storage, offset=1, requires_grad=True),
        TensorInfo("both", "float32", (2,), storage, requires_grad=True),
    ]
    assert module_figures([ModuleNode("")], held)[""] == Figures(2, 2, 2, 8)
