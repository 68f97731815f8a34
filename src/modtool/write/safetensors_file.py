"""A plan as one safetensors file."""

import json

from modtool.formats.safetensors_writer import Entry, file_header, file_order
from modtool.plan import BN_EVAL_METADATA, FLAGS_METADATA, Plan, bn_eval_of, stored_once
from modtool.write.payload import Compute, Payload, payload_of, put
from modtool.write.streams import Sink

__all__ = ["layout", "write_safetensors"]


def layout(plan: Plan) -> tuple[bytes, list[Payload]]:
    """The header, and the data in the order of the file."""
    removed = stored_once(plan)
    tensors = [tensor for tensor in plan.tensors if tensor.name not in removed]
    entries = {
        tensor.name: Entry(tensor.name, tensor.dtype, tensor.source.shape) for tensor in tensors
    }
    tensors.sort(key=lambda tensor: file_order(entries[tensor.name]))
    metadata = {**plan.metadata, **removed}
    if plan.requires_grad is not None:
        metadata[FLAGS_METADATA] = json.dumps(dict(plan.requires_grad), separators=(",", ":"))
    if paths := bn_eval_of(plan):
        metadata[BN_EVAL_METADATA] = json.dumps(paths, separators=(",", ":"))
    elif plan.bn_eval is not None:
        metadata.pop(BN_EVAL_METADATA, None)
    header = file_header([entries[tensor.name] for tensor in tensors], metadata)
    return header, [payload_of(tensor) for tensor in tensors]


def write_safetensors(
    header: bytes, payloads: list[Payload], sink: Sink, compute: Compute | None
) -> None:
    """The whole file."""
    sink.write(header)
    for payload in payloads:
        put(payload, sink, compute, crc=False)
