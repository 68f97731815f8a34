"""What storages say: devices that a machine may not have."""

from collections import Counter
from collections.abc import Iterator

from modtool.notes import note
from modtool.records import Checkpoint, Note

__all__ = ["recorded_devices"]


def recorded_devices(checkpoint: Checkpoint) -> Iterator[Note]:
    """Tensors saved from a device: `torch.load` without map_location wants it back."""
    devices = Counter(tensor.location for tensor in checkpoint.tensors)
    for device, count in devices.items():
        if device not in ("cpu", "meta"):
            yield note(
                "device-location",
                device,
                f"{count:,} of {len(checkpoint.tensors):,} tensors were saved from {device}, "
                "which torch.load wants back",
                "load with map_location, or rewrite it: modtool convert --map-location cpu",
            )
