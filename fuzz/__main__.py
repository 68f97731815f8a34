"""`python -m fuzz TARGET FOLDER [libFuzzer options]`: fuzz one target with the seeds in FOLDER."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["modtool"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """Run until something else than modtool's own errors comes out, or the time is over.

    With files among the options, only those are run, once each.
    """
    if len(sys.argv) < 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"{(__doc__ or '').strip()}\nTARGET: {', '.join(TARGETS)}")
    name, folder = sys.argv[1], Path(sys.argv[2])
    target = TARGETS[name]
    corpus = folder / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    options = [f"-artifact_prefix={folder / name}/", *sys.argv[3:]]
    if not any(Path(option).is_file() for option in options):
        options += [str(corpus), str(folder / name / "seeds")]
    atheris.Setup([sys.argv[0], *options], target.make(folder / name / "others"))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
