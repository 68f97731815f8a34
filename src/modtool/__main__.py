"""`python -m modtool`, and the entry point of the command.

Importing the command line takes a tenth of a second, in which Ctrl-C may come: so it is imported
where that is caught.
"""

import sys

__all__ = ["main"]

INTERRUPTED = 130


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line, whenever it comes."""
    try:
        from modtool.cli import main as run

        run()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
