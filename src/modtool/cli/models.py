"""What commands that take a model share."""

from collections.abc import Sequence

__all__ = ["arguments_of"]


def arguments_of(texts: Sequence[str], file: str | None) -> dict[str, object]:
    """Constructor arguments from `--args-from`, then `--arg`, which wins."""
    from modtool.live.arguments import parse_arguments, read_arguments

    return {**(read_arguments(file) if file else {}), **parse_arguments(texts)}
