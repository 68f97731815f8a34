"""To be checked changes nothing about a model, nor about the process."""

import pytest

from modtool.live.inputs import parse_inputs
from modtool.live.lint import lint_model
from tests.live.test_untouched import Busy, state, surroundings


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_a_check_leaves_nothing_changed(real: bool, fails: bool) -> None:
    model = Busy(real, fails)
    model.norm.eval()
    before = state(model), surroundings()
    without = lint_model(model)
    assert (state(model), surroundings()) == before
    found = lint_model(model, parse_inputs(["8,4"], model))
    assert (state(model), surroundings()) == before
    assert set(without) < set(found)
    assert ("forward-failed" in {each.code for each in found}) is fails


def test_an_interrupt_leaves_nothing_behind() -> None:
    model = Busy(real=False, fails=False)
    before = state(model), surroundings()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    handle = model.head.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        lint_model(model, parse_inputs(["8,4"], model))
    handle.remove()
    assert (state(model), surroundings()) == before
