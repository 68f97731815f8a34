"""Zip directories that lie: none of two readings of one file is taken for the truth."""

from pathlib import Path

import pytest

from modtool.errors import CorruptFileError
from modtool.formats import open_checkpoint


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04\0Z,iPK\x05\x06\0\0\0", b"PK\x03\x04,iPK\x05\x06\0\0\0\0"]
)
def test_an_end_record_that_the_file_cuts_short(tmp_path: Path, data: bytes) -> None:
    """Found by fuzzing: files shorter than an end record."""
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match="without its central directory"):
        open_checkpoint(str(path))
