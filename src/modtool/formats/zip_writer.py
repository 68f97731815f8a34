"""The zip layout that `torch.save` writes, record by record.

Stored, never deflated; data aligned to 64 bytes by padding in the local header's extra field; sizes
and CRC in a descriptor after the data, so that nothing is written twice. Byte for byte the choices
of torch's own writer (miniz in torch 2.13), because `torch.load` may calculate where records lie
instead of looking (`torch.utils.serialization.config.load.calculate_storage_offsets`).
"""

from dataclasses import dataclass, field
from struct import pack

__all__ = ["ALIGNMENT", "ZipLayout"]

ALIGNMENT = 64
LIMIT = 0xFFFFFFFF
MAX_ENTRIES = 0xFFFF
PADDING_ID = b"FB"
ZIP64_ID = 1
FLAGS_UTF8 = 0x0800
FLAGS_DESCRIPTOR = 0x0808


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that was begun: what the central directory says of it."""

    name: bytes
    nbytes: int
    offset: int
    crc: int = 0

    @property
    def flags(self) -> int:
        """UTF-8 name; a descriptor follows where there is data."""
        return FLAGS_DESCRIPTOR if self.nbytes else FLAGS_UTF8

    @property
    def zip64(self) -> bytes:
        """The ZIP64 extra field: sizes, offset, each where it does not fit 32 bits."""
        sizes = pack("<QQ", self.nbytes, self.nbytes) if self.nbytes >= LIMIT else b""
        offset = pack("<Q", self.offset) if self.offset >= LIMIT else b""
        data = sizes + offset
        return pack("<HH", ZIP64_ID, len(data)) + data if data else b""


@dataclass(slots=True)
class ZipLayout:
    """The bytes between the data of one archive; whoever writes puts the data in.

    For each record: `begin`, the data, `end`. After the last one: `finish`.

    Attributes:
        root: The folder that every record lies in.
        position: Bytes so far.
    """

    root: str
    position: int = 0
    entries: list[Entry] = field(default_factory=list)

    def begin(self, name: str, nbytes: int) -> bytes:
        """The local header of a record of `nbytes` bytes, padded so that its data is aligned."""
        entry = Entry(f"{self.root}/{name}".encode(), nbytes, self.position)
        self.entries.append(entry)
        zip64 = entry.zip64
        fixed = 30 + len(entry.name) + len(zip64) + len(PADDING_ID) + 2
        padding = -(self.position + fixed) % ALIGNMENT
        extra = zip64 + PADDING_ID + pack("<H", padding) + b"Z" * padding
        header = pack(
            "<4s5H3I2H",
            b"PK\x03\x04",
            *(0, entry.flags, 0, 0, 0),
            *(0, 0, 0),
            *(len(entry.name), len(extra)),
        )
        self.position += len(header) + len(entry.name) + len(extra)
        return header + entry.name + extra

    def end(self, crc: int) -> bytes:
        """The descriptor that follows the data of the record begun last."""
        begun = self.entries[-1]
        entry = self.entries[-1] = Entry(begun.name, begun.nbytes, begun.offset, crc)
        self.position += entry.nbytes
        if not entry.nbytes:
            return b""
        sizes = "<4sIQQ" if entry.zip64 else "<4sIII"
        descriptor = pack(sizes, b"PK\x07\x08", crc, entry.nbytes, entry.nbytes)
        self.position += len(descriptor)
        return descriptor

    def finish(self) -> bytes:
        """The central directory and the end records."""
        directory = b"".join(map(central_header, self.entries))
        count, start = len(self.entries), self.position
        end64 = pack(
            "<4sQ2H2I4Q", b"PK\x06\x06", 44, 0x031E, 45, 0, 0, count, count, len(directory), start
        )
        locator = pack("<4sIQI", b"PK\x06\x07", 0, start + len(directory), 1)
        few = min(count, MAX_ENTRIES)
        sizes = (min(len(directory), LIMIT), min(start, LIMIT))
        end = pack("<4s4H2IH", b"PK\x05\x06", 0, 0, few, few, *sizes, 0)
        return directory + end64 + locator + end


def central_header(entry: Entry) -> bytes:
    """What the central directory says of one record."""
    zip64 = entry.zip64
    size = min(entry.nbytes, LIMIT)
    header = pack(
        "<4s6H3I5H2I",
        b"PK\x01\x02",
        *(0, 0, entry.flags, 0, 0, 0),
        *(entry.crc, size, size),
        *(len(entry.name), len(zip64), 0, 0, 0),
        *(0, min(entry.offset, LIMIT)),
    )
    return header + entry.name + zip64
