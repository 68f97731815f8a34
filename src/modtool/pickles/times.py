"""Times of datetime as text, read off the packed bytes that would make them.

Source: CPython 3.13, `datetime.__reduce_ex__`, `time.__reduce_ex__`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from modtool.pickles.packed import bytes_of
from modtool.pickles.symbols import Call

__all__ = ["READERS"]


def moment(call: Call) -> object:
    """A `datetime` or `date` from its packed bytes (`datetime.__reduce__`)."""
    packed = bytes_of(call.arguments[0])
    year = packed[0] * 256 + packed[1]
    day = f"{year:04d}-{packed[2] & 0x7F:02d}-{packed[3]:02d}"
    if len(packed) == 4:
        return day
    return f"{day}T{clock(packed[4:])}{zone_in(call)}"


def time_of_day(call: Call) -> object:
    """A `time` from its packed bytes."""
    return f"{clock(bytes_of(call.arguments[0]))}{zone_in(call)}"


def clock(packed: bytes) -> str:
    """`03:04:05.000006` from six bytes: hour, minute, second, microseconds."""
    micro = int.from_bytes(packed[3:6], "big")
    return f"{packed[0]:02d}:{packed[1]:02d}:{packed[2]:02d}" + (f".{micro:06d}" if micro else "")


def zone_in(call: Call) -> str:
    """The time zone of a moment, where it has one."""
    return zone_of(call.arguments[1]) if len(call.arguments) > 1 else ""


def zone_of(value: object) -> str:
    """`+02:00` from `timezone(timedelta(0, 7200))`; an unknown zone is an error."""
    match value:
        case Call(arguments=(Call(arguments=(int(days), int(seconds), 0)) as delta,)) as zone:
            if (zone.callee, delta.callee) == ("datetime.timezone", "datetime.timedelta"):
                minutes = abs(days * 1440 + seconds // 60)
                sign = "-" if days < 0 else "+"
                return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    raise TypeError


READERS: Mapping[str, Callable[[Call], object]] = MappingProxyType(
    {"datetime.datetime": moment, "datetime.date": moment, "datetime.time": time_of_day}
)
