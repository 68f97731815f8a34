"""Options of commands that write, as edits of a plan."""

from collections.abc import Callable, Sequence
from functools import partial

from modtool import plan as plans
from modtool.errors import UsageError
from modtool.plan import Plan

__all__ = ["Edit", "casting", "laying_out", "locations", "naming", "needed", "setting"]

Edit = Callable[[Plan], Plan]


def locations(texts: Sequence[str]) -> list[Edit]:
    """`--map-location cpu`, or `--map-location cuda:0=cuda:1` for each device."""
    whole = [text for text in texts if "=" not in text]
    if whole and len(texts) > 1:
        raise UsageError(
            f"--map-location {whole[0]} is for all tensors, and stands alone",
            "leave out the others, or write OLD=NEW for each, such as cuda:0=cpu",
        )
    if whole:
        return [partial(plans.map_location, where=whole[0])]
    pairs = dict(text.split("=", 1) for text in texts)
    return [partial(plans.map_location, where=pairs)] if pairs else []


def setting(
    keep: Sequence[str], drop: Sequence[str], *, drop_optimizer: bool = False
) -> list[Edit]:
    """`--keep`, `--drop` and `--drop-optimizer`."""
    edits: list[Edit] = []
    if keep:
        edits.append(partial(plans.keep, patterns=keep))
    if drop:
        edits.append(partial(plans.drop, patterns=drop))
    if drop_optimizer:
        edits.append(plans.drop_optimizer)
    return edits


def casting(dtype: str | None, rules: Sequence[str]) -> list[Edit]:
    """`--dtype bf16` and `--dtype-for PATTERN=fp32`."""
    if dtype is None and not rules:
        return []
    found: dict[str, str] = {}
    for rule in rules:
        pattern, equals, name = rule.rpartition("=")
        if not equals or not pattern or not name:
            raise UsageError(
                f"--dtype-for {rule!r} casts nothing", "write PATTERN=DTYPE, such as 'norm*=fp32'"
            )
        found.pop(pattern, None)  # the later one wins, also over those in between
        found[pattern] = name
    return [partial(plans.cast, dtype=dtype, rules=found)]


def naming(strip: Sequence[str], renames: Sequence[str], prefix: str | None) -> list[Edit]:
    """`--strip-prefix`, `--rename` and `--add-prefix`, in this order."""
    edits: list[Edit] = []
    if strip:
        edits.append(partial(plans.strip_prefix, prefixes=strip))
    edits += [partial(plans.rename, text=text) for text in renames]
    if prefix:
        edits.append(partial(plans.add_prefix, prefix=prefix))
    return edits


def laying_out(values: Sequence[str], tied: str, *, shrink: bool) -> list[Edit]:
    """`--set`, `--tied` and `--shrink`."""
    edits: list[Edit] = [
        partial(plans.set_value, key=key, value=value) for key, value in map(key_and_value, values)
    ]
    edits.append(partial(plans.tied, how=str(tied)))
    if shrink:
        edits.append(plans.shrink)
    return edits


def key_and_value(text: str) -> tuple[str, object]:
    """From `optimizer.param_groups.0.lr=1e-4`: any text, and a Python literal or text."""
    from modtool.live.arguments import parse_value

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text!r} sets nothing", "write KEY=VALUE, such as epoch=3")
    return key.strip(), parse_value(value.strip())


def needed(output: str | None, *, dry_run: bool) -> str:
    """The output, which these commands cannot do without; none is "" where nothing is written."""
    if output is None and dry_run:
        return ""
    if output is None:
        raise UsageError("no output given", "name the file to write: -o OUT")
    return output
