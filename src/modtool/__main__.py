"""`python -m modtool`, and the entry point of the command.

Importing the command line takes a tenth of a second, in which Ctrl-C may come: so it is imported
where that is caught.
"""

import sys
from types import FrameType

__all__ = ["main"]

INTERRUPTED = 130


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line, whenever it comes."""
    pressed: list[int] = []
    try:
        watch(pressed)
        from modtool.cli import main as run

        run()
    except (Exception, KeyboardInterrupt) as error:
        # What is interrupted may raise something else: the making of a class, torch's import of
        # NumPy.
        if not pressed and not isinstance(error, KeyboardInterrupt):
            raise
        print("error: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def watch(pressed: list[int]) -> None:
    """Have it written down when Ctrl-C comes, unless the process was started to ignore it."""
    import signal

    def interrupt(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


if __name__ == "__main__":
    main()
