"""`--trust`: load a file for real, which runs what it holds. Only a forward pass asks for this."""

import contextlib
import functools
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from modtool.errors import ModelError, TargetError, a_kind
from modtool.live.blame import model_error
from modtool.live.load import LoadedModel, check_device, returned
from modtool.records import Checkpoint

__all__ = ["load_trusted"]


def load_trusted(checkpoint: Checkpoint, device: str | None = None) -> LoadedModel:
    """The model that a full-model save or a TorchScript file holds.

    Its classes are imported and its code is run: the caller was told to trust it.

    Raises:
        TargetError: The file holds no model.
        ModelError: It could not be loaded; the message says what is missing.
    """
    check_device(device)
    path = checkpoint.target
    where = torch.device(device if device not in (None, "meta") else "cpu")
    here = str(Path.cwd())
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.path.insert(0, here)
        try:
            if checkpoint.format == "torchscript":
                model: object = torch.jit.load(path, map_location=where)  # type: ignore[no-untyped-call]
            else:
                model = torch.load(path, map_location=where, weights_only=False)
        except (Exception, SystemExit) as error:
            raise unloadable(path, error) from error
        finally:
            sys.path.remove(here)
    if not isinstance(model, nn.Module):
        raise TargetError(f"{path}: holds {a_kind(model)}, not a model that can be run")
    return LoadedModel(model, path, "real", str(where), functools.partial(returned, model))


def unloadable(path: str, error: BaseException) -> ModelError:
    """Why a file could not be loaded."""
    return model_error(error, f"loading {path}")
