"""`convert --salvage`: what of a damaged file is whole."""

from zlib_ng.zlib_ng import crc32

from modtool.formats.truncated import is_lost
from modtool.records import FileRange, Storage

__all__ = ["damage"]

BLOCK = 1 << 20


def damage(storage: Storage) -> str:
    """What is wrong with the bytes of a storage; "" where nothing is that a file could tell.

    Zip archives have checksums, unless torch was told to leave them out; other files have none.
    """
    if is_lost(storage):
        return "lost: its bytes are not in the file"
    place = storage.data
    if isinstance(place, FileRange) and place.crc and checksum(place) != place.crc:
        return "damaged: its bytes do not give the checksum that was saved with them"
    return ""


def checksum(place: FileRange) -> int:
    """CRC-32 of a part of a file."""
    found, left = 0, place.length
    with open(place.path, "rb", buffering=0) as file:
        file.seek(place.offset)
        while left and (block := file.read(min(BLOCK, left))):
            found = crc32(block, found)
            left -= len(block)
    return found
