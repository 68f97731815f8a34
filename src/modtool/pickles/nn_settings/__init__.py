"""What a module of torch says of itself, from its pickled attributes, without torch.

`print(model)` asks every module for its `extra_repr()`. Here the same text is made from what a
full-model save holds; templates and functions follow torch 2.13, `torch/nn/modules/*.py` and
`torch/ao/nn/**/*.py`. What a file of an older torch lacks is left out.

To add a class: one entry in `standard.STANDARD` or `quantized.QUANTIZED`; to say that a class
heeds train and eval: one in `modes.MODES`.
"""

from collections.abc import Mapping

from modtool.pickles.nn_settings.language import View, rendered
from modtool.pickles.nn_settings.modes import mode_rule, mode_sensitive
from modtool.pickles.nn_settings.names import printed_name, room_and_class
from modtool.pickles.nn_settings.quantized import QUANTIZED, quantized_conv_attributes
from modtool.pickles.nn_settings.standard import STANDARD

__all__ = ["mode_rule", "mode_sensitive", "printed_name", "quantized_conv_attributes"]
__all__ += ["settings_of"]


def settings_of(
    class_name: str,
    attributes: Mapping[str, object],
    parameters: Mapping[str, tuple[int, ...] | None],
) -> str:
    """The settings of a module, as `extra_repr()` would print them.

    Args:
        class_name: Qualified: `torch.nn.modules.linear.Linear`.
        attributes: The module's `__dict__`, as it was read from the pickle.
        parameters: The shape of each own parameter; None for one that is registered as None.

    Returns:
        The text; "" for a class that is not known, or that has nothing to say.
    """
    room, name = room_and_class(class_name)
    table = STANDARD if room == "" else QUANTIZED.get(room, {})
    settings = table.get(name)
    return "" if settings is None else rendered(settings, View(attributes, parameters))
