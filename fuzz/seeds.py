"""`python -m fuzz.seeds FOLDER` writes the seeds of every target; torch makes them."""

import sys
import zipfile
from io import BytesIO
from pathlib import Path

from fuzz.targets import TARGETS
from tests.formats.samples import SAMPLES, sample

__all__ = ["write_seeds"]


def write_seeds(folder: Path) -> None:
    """`FOLDER/TARGET/seeds/…`, and in `FOLDER/TARGET/others` the files that lie beside it."""
    for target, made in TARGETS.items():
        seeds, others = folder / target / "seeds", folder / target / "others"
        seeds.mkdir(parents=True, exist_ok=True)
        others.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(made.samples):
            if name == "pickles":
                write_pickles(seeds)
                continue
            found = sample(name)
            (seeds / str(number)).write_bytes(found.files[found.damaged])
            for other, data in found.files.items():
                if other != found.damaged:
                    (others / other).parent.mkdir(parents=True, exist_ok=True)
                    (others / other).write_bytes(data)


def write_pickles(folder: Path) -> None:
    """The pickle of every zip among the samples."""
    for name in SAMPLES:
        found = sample(name)
        data = found.files[found.damaged]
        if not data.startswith(b"PK"):
            continue
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for member in archive.namelist():
                if member.endswith(".pkl"):
                    seed = folder / f"{name} {member}".replace("/", " ")
                    seed.write_bytes(archive.read(member))


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
