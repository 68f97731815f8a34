"""`modtool convert`: a checkpoint in another form."""

from modtool.api import converting
from modtool.api.writing import Writing
from modtool.cli import convert_options as own
from modtool.cli import options
from modtool.cli.edits import casting, laying_out, locations, naming, setting
from modtool.cli.progress import progress_bar
from modtool.cli.ranks import ranks_here
from modtool.cli.show import print_note, show
from modtool.plan import FORMS, notes_of_overflows
from modtool.report.changes import conversion_report

__all__ = ["convert"]


def convert(
    source: options.Checkpoint,
    to: own.To = None,
    output: own.Output = None,
    section: options.Section = None,
    keep: options.Keep = [],  # noqa: B006
    drop: options.Drop = [],  # noqa: B006
    drop_optimizer: own.DropOptimizer = False,
    strip_prefix: own.StripPrefix = [],  # noqa: B006
    rename: own.Rename = [],  # noqa: B006
    add_prefix: own.AddPrefix = None,
    dtype: own.Dtype = None,
    dtype_for: own.DtypeFor = [],  # noqa: B006
    map_location: options.MapLocation = [],  # noqa: B006
    set_values: own.SetValues = [],  # noqa: B006
    tied: own.Tied = own.KEEP,
    shrink: own.Shrink = False,
    max_shard_size: own.MaxShardSize = None,
    salvage: own.Salvage = False,
    verify: own.Verify = False,
    no_sync: own.NoSync = False,
    in_place: own.InPlace = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    form: options.Format = options.TABLE,
    as_json: options.Json = False,
    no_color: options.NoColor = False,
) -> int:
    """Turn a checkpoint into another form.

    A state_dict, a training checkpoint or safetensors, in one file or a set; or with --to dcp
    a folder that torch.distributed.checkpoint loads. Nothing in the file is imported or
    executed; everything left out is named. PATTERN is a name in the source: a glob, a module
    and all below it, re:EXPR, or type:Linear. Under torchrun each process writes its share of a
    set of files; the first one alone writes a single file or a distributed checkpoint.

    Examples:
      modtool convert model.pth                       (writes model_state_dict.pth)
      modtool convert ckpt.pth --to safetensors -o model.safetensors
      modtool convert full.pth --to checkpoint --set epoch=3 --map-location cpu -o ckpt.pth
      modtool convert ddp.pth --strip-prefix auto --dtype bf16 --max-shard-size 5GB -o out/
      modtool convert distributed_checkpoint/ -o model.safetensors --verify
      modtool convert ckpt.pth --to dcp -o distributed_checkpoint/
    """
    edits = [
        *setting(keep, drop, drop_optimizer=drop_optimizer),
        *casting(dtype, dtype_for),
        *locations(map_location),
        *naming(strip_prefix, rename, add_prefix),
        *laying_out(set_values, tied, shrink=shrink),
    ]
    ranks = ranks_here()
    with progress_bar() as progress:
        outcome = converting.convert(
            source,
            output,
            to=FORMS[list(own.FormName).index(to)] if to else None,
            section=section,
            salvage=salvage,
            edits=edits,
            max_shard_size=max_shard_size,
            writing=Writing(
                force=force,
                in_place=in_place,
                dry_run=dry_run,
                verified=verify,
                sync="never" if no_sync else "now",
                ranks=ranks,
                progress=progress,
            ),
        )
    if ranks.rank:  # what it wrote, no other process has seen
        for note in notes_of_overflows(outcome.overflows):
            print_note(note)
    else:
        report = conversion_report(
            outcome.plan,
            outcome.written,
            outcome.overflows,
            dry_run=dry_run,
            verified=verify and not dry_run,
        )
        show(report, form, as_json=as_json, no_color=no_color)
    return int(any(dropped.lost for dropped in outcome.plan.dropped))
