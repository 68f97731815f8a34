"""What commands that take a model share."""

from collections.abc import Sequence

__all__ = ["arguments_of"]


def arguments_of(
    texts: Sequence[str], file: str | None, *, dotted: bool = False
) -> dict[str, object]:
    """Arguments from `--args-from`, then those given one by one, which win."""
    from modtool.live.arguments import parse_arguments, read_arguments

    return {**(read_arguments(file) if file else {}), **parse_arguments(texts, dotted=dotted)}
