"""Training flags that do not fit together, and what train() and eval() make of them."""

from collections.abc import Iterator

from torch import nn

from modtool.live.lint.subject import Subject, and_others
from modtool.live.sensitive import is_mode_sensitive
from modtool.live.untouched import untouched
from modtool.live.walk import training_flag
from modtool.records import Note

__all__ = ["frozen_norms", "mixed_modes"]


def mixed_modes(subject: Subject) -> Iterator[Note]:
    """Modules that compute differently in train and eval, and are not in the model's own mode."""
    model = subject.model
    sensitive = [(path, each) for path, each in subject.modules if path and is_mode_sensitive(each)]
    after_eval = flags_after(model, training=False)
    left = [
        path
        for path, each in sensitive
        if after_eval.get(id(each)) or (training_flag(each) and not training_flag(model))
    ]
    yield from and_others(
        "train-mode-child",
        left,
        "stays in train mode while the model is in eval mode, and computes as in training",
        "have train(mode) of the modules above pass it on" if any(after_eval.values()) else "",
    )
    after_train = flags_after(model, training=True)
    undone = [
        path
        for path, each in sensitive
        if training_flag(model) and not training_flag(each) and after_train.get(id(each))
    ]
    yield from and_others(
        "eval-mode-child",
        undone,
        "is in eval mode, and the next model.train() undoes that",
    )


def flags_after(model: nn.Module, *, training: bool) -> dict[int, bool]:
    """Every module's flag after `model.train(training)`; none where that raises."""
    with untouched(model):
        try:
            model.train(training)
        except Exception:
            return {}
        return {id(module): bool(training_flag(module)) for module in model.modules()}


def frozen_norms(subject: Subject) -> Iterator[Note]:
    """Modules whose parameters are frozen, and whose running statistics are not."""
    if not any(is_frozen_norm(module) for _, module in subject.modules):
        return
    after = flags_after(subject.model, training=True)
    loose = [
        path
        for path, module in subject.modules
        if is_frozen_norm(module) and module.training and after.get(id(module))
    ]
    yield from and_others(
        "frozen-batchnorm",
        loose,
        "frozen, but in train mode it still updates its running statistics",
        "override train() of the model so that it keeps this module in eval mode",
    )


def is_frozen_norm(module: nn.Module) -> bool:
    """True for a module with running statistics and parameters, all of those frozen."""
    own = [each for each in module._parameters.values() if each is not None]
    tracks = getattr(module, "running_mean", None) is not None
    return tracks and bool(own) and not any(each.requires_grad for each in own)
