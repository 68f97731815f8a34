"""The stable codes of notes and what each one means; the README's table is made from here.

Why each matters and what to do about it stands in `checks/explanations.md`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from modtool.records import Level, Note

__all__ = ["CODES", "first_names", "note"]

CODES: Mapping[str, tuple[Level, str]] = MappingProxyType(
    {
        "unregistered-module": (
            "warning",
            "a module or parameter kept in a plain list, dict or tuple, which PyTorch does not see",
        ),
        "uninitialized-parameter": (
            "note",
            "a lazy parameter or buffer that has no shape before the first forward pass",
        ),
        "state-dict-failed": (
            "warning",
            "the model's own state_dict() raised: names are those of its parameters and buffers",
        ),
        "not-a-tensor": (
            "note",
            "an entry of state_dict() that is no tensor",
        ),
        "ran-for-real": (
            "note",
            "the forward pass needed values, so it was run for real and not on fake tensors",
        ),
        "no-gradient": (
            "warning",
            "a backward pass was asked for, and no output depends on a trainable parameter",
        ),
        "unused-parameters": (
            "warning",
            "trainable parameters that no gradient reaches, which DistributedDataParallel refuses",
        ),
        "norms-left-out": (
            "note",
            "gradient norms need values: the backward pass ran for its shapes alone",
        ),
        "initial-values": (
            "note",
            "values are shown of a model built from its configuration, which holds no weights",
        ),
        "non-finite": (
            "warning",
            "the first module that gave NaN or Inf though what it was given had none",
        ),
        "dead-units": ("note", "units of a ReLU that gave nothing but zeros"),
        "scripted-module": (
            "note",
            "TorchScript takes no hooks: the calls inside of it have no rows, its MACs are counted",
        ),
        "missing-shard": (
            "warning",
            "a file of a set that is not there, or ends too early; the rest is shown",
        ),
        "truncated": (
            "warning",
            "a file that ends too early or is damaged; convert --salvage writes what is whole",
        ),
        "missing-tensor": (
            "warning",
            "a tensor that an index promises and no file has, or of which parts are not stored",
        ),
        "unlisted-tensor": (
            "note",
            "a tensor in a file of a set that the index does not list",
        ),
        "unlisted-shard": (
            "warning",
            "a file named like those of a set beside it, which the index does not list",
        ),
        "wrong-total-size": (
            "note",
            "an index whose total_size is not what its tensors take",
        ),
        "repeated-tensor": ("warning", "a tensor that several files of a set have"),
        "link-outside": (
            "warning",
            "a file of a set that is a symbolic link out of the folder",
        ),
        "folder-has-more": ("note", "another checkpoint in the same folder, which is not shown"),
        "partitioned-weights": (
            "note",
            "parameters whose elements lie in pieces in the files of the ranks",
        ),
        "tensor-parallel": (
            "warning",
            "several ranks hold slices of the same tensors; the shapes are those of one rank",
        ),
        "compressed-member": (
            "note",
            "a packed part of a file, whose bytes cannot be copied as they lie",
        ),
        "pickled-array": (
            "warning",
            "an array of Python objects, which only unpickling would load",
        ),
        "extra-state": (
            "note",
            "a class that adds, or may add, to state_dict() what only its own code can make",
        ),
        "cyclic-value": (
            "note",
            "a value that contains itself, which is shown up to there and no further",
        ),
        "stray-bytes": (
            "note",
            "bytes before or after an archive that belong to nothing in it",
        ),
        "missing-weights": ("warning", "names of the model that --weights did not have"),
        "unexpected-weights": ("warning", "names in --weights that the model does not have"),
        "mismatched-weights": ("warning", "names in --weights whose shape is not the model's"),
        "tied-stored-once": (
            "note",
            "tensors that share their elements, stored under one name; the metadata has the other",
        ),
        "tied-stored-apart": (
            "note",
            "tensors that share their elements, stored once for each name",
        ),
        "cast-overflow": (
            "warning",
            "finite values that became infinite, NaN or the largest number of the type cast to",
        ),
        "keys-become-text": (
            "note",
            "keys of dicts that are no text, which a distributed checkpoint makes text",
        ),
        "becomes-plain": (
            "note",
            "values that weights_only=True refuses, written as what they are equal to",
        ),
        "nothing-stripped": ("note", "--strip-prefix auto found no prefix to take off"),
        "no-optimizer": ("note", "--drop-optimizer found no optimizer's state to leave out"),
        "tied-together": (
            "note",
            "a parameter that is frozen, unfrozen or filled because one tied to it is",
        ),
        "frozen-batchnorm": (
            "note",
            "a frozen module whose running statistics still change in train mode",
        ),
        "optimizer-holds-frozen": (
            "note",
            "the optimizer's state in the same checkpoint still holds frozen parameters",
        ),
        "optimizer-holds-dropped": (
            "note",
            "an optimizer beside the model still has a place for parameters that are left out",
        ),
        "optimizer-order-assumed": (
            "note",
            "an optimizer's parameters taken to be in the model's order, as only that tells them",
        ),
        "guessed-fans": (
            "warning",
            "fan-in and fan-out guessed from the shape, as the layer's type is not known",
        ),
        "left-unfilled": (
            "note",
            "selected tensors that the scheme does not fit, left as they are by --skip-unfit",
        ),
        "executes-code": (
            "error",
            "loading the file for real would call something that is known to execute code",
        ),
        "unknown-callable": (
            "warning",
            "loading the file for real would import or call something that ordinary checkpoints "
            "do not need",
        ),
        "device-location": (
            "note",
            "tensors saved from a device that a machine may not have",
        ),
        "saved-in-train-mode": (
            "warning",
            "Dropout, BatchNorm and their like in train mode in a saved model",
        ),
        "missing-metadata": (
            "note",
            "a safetensors file that does not say that PyTorch wrote it",
        ),
        "does-not-load": (
            "error",
            "with --model: load_state_dict(strict=True) would refuse the checkpoint",
        ),
        "assertion-failed": ("error", "an --assert that does not hold"),
        "nan-values": ("warning", "with --values: elements that are NaN"),
        "infinite-values": ("warning", "with --values: elements that are infinite"),
        "subnormal-values": (
            "note",
            "with --values: numbers too small for their type's full precision",
        ),
        "zero-tensors": ("note", "with --values: tensors that are zero everywhere"),
        "constant-tensors": ("note", "with --values: tensors that hold one value everywhere"),
        "equal-copies": (
            "note",
            "with --values: a tensor of 4 KiB or more that is equal to another, and stored once "
            "more",
        ),
        "overflows-fp16": (
            "note",
            "with --values: weights that would become infinite in fp16",
        ),
        "overflows-bf16": (
            "note",
            "with --values: weights that would become infinite in bf16",
        ),
        "values-not-read": (
            "note",
            "with --values: tensors whose elements could not be looked at",
        ),
        "wrapped-names": ("note", "names with the prefix of DataParallel or torch.compile"),
        "optimizer-mismatch": (
            "warning",
            "optimizer state for other parameters than the model section has: in number or shape",
        ),
        "oversized-storage": (
            "warning",
            "tensors that use little of the storage that is saved with them",
        ),
        "unshown-tensors": (
            "note",
            "tensors in objects that only their own code could look into: no name is known of them",
        ),
        "values-not-compared": (
            "warning",
            "tensors whose values could not be compared: sparse ones, or those without any data; "
            "or more plain values than are looked at",
        ),
        "filled-on-load": (
            "note",
            "counters of BatchNorm that the checkpoint lacks, and that loading would set to 0",
        ),
        "own-loading": (
            "note",
            "modules whose load_state_dict has code of its own, which may take what does not fit",
        ),
        "cast-on-load": (
            "note",
            "tensors of another dtype than the model's, which loading would cast",
        ),
        "plain-tensor": (
            "warning",
            "a tensor that is a plain attribute of a module: no parameter and no buffer",
        ),
        "shadowed-name": (
            "warning",
            "a child, parameter or buffer that another attribute of the same name hides",
        ),
        "shared-module": ("note", "a module with parameters under two names"),
        "shared-tensor": ("note", "a parameter or buffer of a model under two names"),
        "train-mode-child": (
            "warning",
            "a module that stays in train mode while the model around it is in eval mode",
        ),
        "eval-mode-child": (
            "note",
            "a module in eval mode that the next model.train() puts back into train mode",
        ),
        "mixed-dtypes": ("note", "parameters of several floating-point types in one model"),
        "mixed-devices": ("note", "tensors of one model on several devices, or without values"),
        "deprecated-hook": ("warning", "a hook of register_backward_hook, which is deprecated"),
        "before-module-init": (
            "error",
            "a module that sets something before nn.Module.__init__() ran, or never runs it",
        ),
        "lost-at-init": (
            "warning",
            "an attribute that a later call of nn.Module.__init__() throws away",
        ),
        "assigned-twice": (
            "warning",
            "a child or parameter that its constructor replaces before it is used",
        ),
        "unset-parameter": (
            "warning",
            "a parameter or buffer made by torch.empty() that nothing fills",
        ),
        "constant-weights": (
            "warning",
            "weights of one value with which a layer cannot learn, or lets nothing through",
        ),
        "bias-before-batchnorm": ("note", "a bias that a batch normalisation subtracts again"),
        "forward-failed": ("error", "a forward pass on the given inputs that raised"),
        "single-value-batchnorm": (
            "warning",
            "a batch normalisation that train mode would give one value of each channel",
        ),
        "never-called": ("warning", "a module that no forward pass calls or asks for"),
        "dropout-in-eval": ("warning", "functional dropout that ignores the model's mode"),
        "varying-output": (
            "warning",
            "a model that gives different results for the same inputs in eval mode",
        ),
        "checks-left-out": ("note", "what could not be checked, and why"),
        "leftover-hook": (
            "note",
            "a hook on a module or parameter that is not of the model's own code",
        ),
    }
)


def note(code: str, where: str, message: str, remedy: str = "") -> Note:
    """A note with the level that its code has in `CODES`."""
    return Note(code, CODES[code][0], where, message, remedy)


def first_names(names: Sequence[str], count: int = 3) -> str:
    """The first few of many names, and how many more there are."""
    shown = ", ".join(names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count:,} more"
