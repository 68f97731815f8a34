"""The report of `summary --source`: the program text that a file carries."""

from modtool.errors import UsageError
from modtool.records import Checkpoint
from modtool.report.tables import Column, Report, Table

__all__ = ["source_report"]

SOURCE_COLUMNS = (
    Column("name", "name", "the class, or the file in the archive"),
    Column("source", "source", "its program text"),
)
CARRIERS = (
    "only modules that torch.fx traced, legacy full-model saves (torch before 1.6, or the option "
    "_use_new_zipfile_serialization=False), TorchScript and torch.package archives do"
)


def source_report(checkpoint: Checkpoint) -> Report:
    """The program text that a file carries, by class or by file in the archive.

    Raises:
        UsageError: It carries none.
    """
    sources = checkpoint.sources
    if not sources:
        raise UsageError(f"{checkpoint.target} carries no source text", CARRIERS)
    return Report(
        lambda: {
            "target": checkpoint.target,
            "format": checkpoint.format,
            "sources": dict(sources),
        },
        lambda: (Table(SOURCE_COLUMNS, tuple(sources.items())),),
        text="\n\n".join(
            f"# {' '.join(name.split())}\n{text.rstrip()}\n" for name, text in sources.items()
        ),
    )
