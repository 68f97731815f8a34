"""Which of several processes this one is, as launchers tell it."""

import os

from modtool.errors import UsageError
from modtool.write import ALONE, Ranks

__all__ = ["ranks_here"]


def ranks_here() -> Ranks:
    """From RANK and WORLD_SIZE, which torchrun and others set; alone where they do not.

    Raises:
        UsageError: They are no numbers that fit together.
    """
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or world is None:
        return ALONE
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise UsageError(f"RANK={rank} and WORLD_SIZE={world} do not fit together", "unset them")
    return Ranks(int(rank), int(world))
