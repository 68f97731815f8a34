"""The object of an output file, put together from the plan's tree and its tensors."""

from collections.abc import Callable
from dataclasses import dataclass, field

from modtool.errors import OutputError
from modtool.pickles.symbols import Call
from modtool.plan import FLAGS_KEY, Plan, PlannedTensor
from modtool.plan.tree import joined, place_of
from modtool.plan.tree import put as put_value
from modtool.records import TensorInfo
from modtool.write.rewriting import refuse_without_place, with_bn_eval
from modtool.write.storages import key_of

__all__ = ["Tree"]

NOT_RENAMED = "leave it out of what is renamed, or write safetensors, whose names are flat"


@dataclass(slots=True)
class Tree:
    """The plan's tree with what `leaf` gives where its tensors are, under their new names."""

    plan: Plan
    leaf: Callable[[PlannedTensor], object]
    planned: dict[tuple[str | None, str], PlannedTensor] = field(default_factory=dict)
    done: dict[int, object] = field(default_factory=dict)

    def root(self) -> object:
        """The object of the file."""
        self.planned = {key_of(tensor): tensor for tensor in self.plan.tensors}
        tree = self.plan.tree
        if self.plan.form == "checkpoint" and self.plan.requires_grad is not None:
            tree = put_value(tree, FLAGS_KEY, dict(self.plan.requires_grad))
        if self.plan.form == "checkpoint":
            tree = with_bn_eval(tree, self.plan)
        refuse_without_place(tree, self.plan)
        return self.value(tree, "")

    def value(self, value: object, path: str) -> object:
        """One value of the tree; what is shared stays shared."""
        if isinstance(value, TensorInfo):
            return self.leaf(self.planned[value.section, value.name])
        if not isinstance(value, dict | list | tuple | set | Call):
            return value
        if id(value) not in self.done:
            self.done[id(value)] = self.container(value, path)
        return self.done[id(value)]

    def container(
        self,
        value: dict[object, object] | list[object] | tuple[object, ...] | set[object] | Call,
        path: str,
    ) -> object:
        """A container with everything in it."""
        if isinstance(value, dict):
            made: dict[object, object] = {}
            self.done[id(value)] = made
            self.fill(made, value, path)
            return made
        if isinstance(value, Call):
            return self.ordered(value, path)
        if isinstance(value, set):
            return value
        items: list[object] = []
        if isinstance(value, list):
            self.done[id(value)] = items
        for index, item in enumerate(value):
            items.append(self.item(item, joined(path, index)))
        return items if isinstance(value, list) else tuple(items)

    def item(self, value: object, path: str) -> object:
        """What stands in a list or tuple; what is left out leaves its place to nothing."""
        if self.is_gone(value):
            return None
        if isinstance(value, TensorInfo) and self.is_renamed(value):
            planned = self.planned[value.section, value.name]
            if place_of(planned.section, planned.name) != path:  # else the list itself is renamed
                why = f"{value.name} lies in a list and cannot become {planned.name}"
                raise OutputError(why, NOT_RENAMED)
        return self.value(value, path)

    def is_renamed(self, value: TensorInfo) -> bool:
        """True for a tensor of the model with a new name; the plan's tree has those of others."""
        planned = self.planned[value.section, value.name]
        return planned.name != value.name and planned.section in self.plan.models

    def ordered(self, value: Call, path: str) -> object:
        """An OrderedDict; other calls hold no tensors and stay as they are."""
        if value.callee != "collections.OrderedDict":
            return value
        made: dict[object, object] = {}
        call = Call(value.function, value.arguments, items=made, state=value.state)
        self.done[id(value)] = call
        self.fill(made, value.items or {}, path)
        return call

    def fill(self, made: dict[object, object], entries: dict[object, object], path: str) -> None:
        """Put entries into a dict: renamed tensors under new keys, those left out not at all."""
        for key, item in entries.items():
            if not self.is_gone(item):
                made[self.key(key, item)] = self.value(item, joined(path, key))

    def is_gone(self, value: object) -> bool:
        """True for a tensor that the plan leaves out."""
        return isinstance(value, TensorInfo) and (value.section, value.name) not in self.planned

    def key(self, key: object, value: object) -> object:
        """The key of an entry: a tensor that is renamed changes the last part of its path."""
        if not isinstance(value, TensorInfo) or not self.is_renamed(value):
            return key
        new = self.planned[value.section, value.name].name
        before = value.name.removesuffix(str(key))
        if not new.startswith(before) or not value.name.endswith(str(key)):
            where = "lies in a dict of its own"
            raise OutputError(f"{value.name} {where} and cannot become {new}", NOT_RENAMED)
        return new.removeprefix(before)
