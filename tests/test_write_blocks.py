"""Blocks reach the file whatever the file system says to writing past the page cache."""

import errno
import fcntl
import os
import random
from pathlib import Path

import pytest

from modtool.records import FileRange
from modtool.write import blocks
from modtool.write.blocks import Blocks
from modtool.write.streams import Sink, Sources

SIZES = (0, 1, 4095, 4096, 8192, 8193, 10 * 8192, 10 * 8192 + 4097)
SHARED_MEMORY = "/dev/shm"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two pages, past the cache from the first byte on."""
    monkeypatch.setattr(blocks, "BLOCK", 8192)
    monkeypatch.setattr(blocks, "DIRECT_FROM", 0)


def written(path: Path, size: int) -> tuple[bytes, bytes, bool]:
    """What was to be written, what the file holds, and whether it went past the cache."""
    data = random.Random(size).randbytes(size)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        with Blocks(descriptor, size) as target:
            direct = target.direct
            position = 0
            while position < size:
                part = data[position : position + min(5000, len(target.room))]
                target.room[: len(part)] = part
                target.filled(len(part))
                position += len(part)
            target.finish()
    finally:
        os.close(descriptor)
    return data, path.read_bytes(), direct


@pytest.mark.parametrize("size", SIZES)
def test_as_the_file_system_has_it(tmp_path: Path, size: int) -> None:
    data, found, _ = written(tmp_path / "x", size)
    assert found == data


@pytest.mark.skipif(not os.path.isdir(SHARED_MEMORY), reason="there is no tmpfs")
@pytest.mark.parametrize("size", SIZES)
def test_in_memory(size: int) -> None:
    path = Path(SHARED_MEMORY, f"modtool-test-{os.getpid()}")
    try:
        data, found, _ = written(path, size)
    finally:
        path.unlink(missing_ok=True)
    assert found == data


@pytest.mark.parametrize("size", SIZES)
def test_where_the_system_has_no_such_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(blocks, "DIRECT", 0)
    data, found, direct = written(tmp_path / "x", size)
    assert (found == data, direct) == (True, False)


@pytest.mark.parametrize("size", SIZES)
def test_where_the_file_system_refuses_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    known = fcntl.fcntl

    def refuse(descriptor: int, command: int, argument: int = 0) -> object:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "as tmpfs did before Linux 6.6")
        return known(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    data, found, direct = written(tmp_path / "x", size)
    assert (found == data, direct) == (True, False)


@pytest.mark.parametrize("size", SIZES)
def test_where_it_takes_the_flag_and_refuses_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    known = os.pwrite

    def refuse(descriptor: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "as a disk with larger sectors does")
        return known(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", refuse)
    data, found, _ = written(tmp_path / "x", size)
    assert found == data


@pytest.mark.parametrize("size", SIZES[3:])
def test_where_a_call_takes_only_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    known = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda descriptor, data, offset: known(descriptor, data[:4096], offset)
    )
    data, found, _ = written(tmp_path / "x", size)
    assert found == data


def test_what_could_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no space left"):
        written(tmp_path / "x", 100 * 8192)


@pytest.mark.parametrize("refusal", [None, errno.EXDEV, errno.ENOSYS])
def test_long_ranges_are_copied_by_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int | None
) -> None:
    monkeypatch.setattr(blocks, "LONG_RANGE", 5000)
    monkeypatch.setattr(blocks, "SYSTEM_COPY", 7001)
    copied: list[int] = []
    known = os.copy_file_range

    def copy(source: int, target: int, count: int, begin: int, end: int) -> int:
        copied.append(count)
        if refusal is not None:
            raise OSError(refusal, "as between two file systems")
        return known(source, target, count, begin, end)

    monkeypatch.setattr(os, "copy_file_range", copy)
    data = random.Random(0).randbytes(100_000)
    (tmp_path / "in").write_bytes(data)
    ranges = [FileRange(str(tmp_path / "in"), *each) for each in ((7, 60_000), (1, 900), (3, 9000))]
    total = sum(each.length for each in ranges)
    descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    with Sources() as sources, Blocks(descriptor, total, cached=True) as target:
        sink = Sink(target, sources, total, None)
        for each in ranges:
            sink.copy(each, "w", crc=False)
        target.finish()
    os.close(descriptor)
    parts = [data[each.offset : each.offset + each.length] for each in ranges]
    assert (tmp_path / "out").read_bytes() == b"".join(parts)
    assert copied == ([7001] * 8 + [7001] if refusal is None else [7001])
