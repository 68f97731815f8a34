"""A plan to disk: laid out first, then streamed, atomic, in a few megabytes of memory."""

from modtool.write.atomic import Sync
from modtool.write.distributed import SaveDistributed, write_distributed
from modtool.write.files import write, write_text
from modtool.write.payload import Compute
from modtool.write.sets import ALONE, Ranks, write_set
from modtool.write.streams import Progress

__all__ = [
    "ALONE",
    "Compute",
    "Progress",
    "Ranks",
    "SaveDistributed",
    "Sync",
    "write",
    "write_distributed",
    "write_set",
    "write_text",
]
