"""Options of commands that write, as edits of a plan."""

from collections.abc import Callable, Sequence
from functools import partial

from modtool import plan as plans
from modtool.cli.models import arguments_of
from modtool.errors import UsageError
from modtool.plan import Plan

__all__ = ["Edit", "locations", "needed", "setting"]

Edit = Callable[[Plan], Plan]


def locations(texts: Sequence[str]) -> list[Edit]:
    """`--map-location cpu`, or `--map-location cuda:0=cuda:1` for each device."""
    whole = [text for text in texts if "=" not in text]
    if whole and len(texts) > 1:
        raise UsageError(f"--map-location {whole[0]} is for all tensors: it stands alone")
    if whole:
        return [partial(plans.map_location, where=whole[0])]
    pairs = dict(text.split("=", 1) for text in texts)
    return [partial(plans.map_location, where=pairs)] if pairs else []


def setting(keep: Sequence[str], drop: Sequence[str], values: Sequence[str]) -> list[Edit]:
    """`--keep`, `--drop` and `--set`, in this order."""
    edits: list[Edit] = []
    if keep:
        edits.append(partial(plans.keep, patterns=keep))
    if drop:
        edits.append(partial(plans.drop, patterns=drop))
    for key, value in arguments_of(values, None).items():
        edits.append(partial(plans.set_value, key=key, value=value))
    return edits


def needed(output: str | None) -> str:
    """The output, which these commands cannot do without."""
    if output is None:
        raise UsageError("no output given", "name the file to write: -o OUT")
    return output
