"""Someone who looks at a pass beside the recorder."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from modtool.live.recorder import Recorder

__all__ = ["Observer"]


class Observer:
    """Looks at a pass; this one sees nothing."""

    def watching(self, recorder: Recorder) -> AbstractContextManager[object]:
        """What the forward pass runs inside of, its hooks on."""
        return nullcontext()

    def repeated(self, recorder: Recorder, again: Callable[[], object]) -> None:
        """Called after a real pass that succeeded, its hooks off.

        Args:
            recorder: What the pass wrote down.
            again: Runs the model on the same inputs; what it changes in the model stays until the
                pass is over.
        """
