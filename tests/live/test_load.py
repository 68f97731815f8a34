import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from modtool.errors import ModelError, TargetError, UsageError
from modtool.live.fake import is_fake
from modtool.live.load import Built, load_model

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file below the working folder, and gives its name back."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    return write


NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, hidden=4):
        super().__init__()
        self.fc = nn.Linear(3, hidden)
"""
NEEDY = NET.replace("hidden=4", "hidden")


KEEPS = """
import functools, torch
from torch import nn
TABLE = {}
@functools.cache
def ramp(size): return torch.arange(size).float()
def listed(size): return TABLE.setdefault(size, torch.ones(size))
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.ramp, self.listed = ramp(4), listed(4)
"""


@pytest.mark.parametrize("build", ["meta", "fake"])
def test_a_model_that_is_built_again_gets_no_hollow_tensor_that_was_kept(
    write: Write, build: Built
) -> None:
    loaded = load_model(write("model.py", KEEPS), build=build)
    hollow, model = vars(loaded.model), vars(loaded.rebuild())
    assert loaded.built == build
    assert [is_fake(hollow[name]) for name in ("ramp", "listed")] == [True, True]
    assert [model[name].tolist() for name in ("ramp", "listed")] == [[0, 1, 2, 3], [1, 1, 1, 1]]


def hidden(model: nn.Module) -> int:
    return int(model.get_parameter("fc.bias").numel())


def test_the_one_class_of_a_file(write: Write) -> None:
    assert hidden(load_model(write("model.py", NET)).model) == 4


def test_arguments_reach_the_constructor(write: Write) -> None:
    name = write("model.py", NEEDY)
    assert hidden(load_model(name, {"hidden": 7}).model) == 7
    assert hidden(load_model(f"{name}:Net", {"hidden": 8}).model) == 8


def test_the_one_instance_goes_before_everything(write: Write) -> None:
    name = write("model.py", NET + "model = alias = Net(5)\ndef build_model(): return Net(6)\n")
    assert hidden(load_model(name).model) == 5


@pytest.mark.parametrize("factory", ["build_model", "create_model", "get_model", "make_model"])
def test_a_factory_goes_before_classes(write: Write, factory: str) -> None:
    name = write("model.py", NET + f"def {factory}(hidden=6): return Net(hidden)\n")
    assert hidden(load_model(name).model) == 6
    assert hidden(load_model(name, {"hidden": 9}).model) == 9


def test_a_named_function_is_called_with_or_without_parentheses(write: Write) -> None:
    name = write("model.py", NET + "def tiny(): return Net(2)\n")
    assert hidden(load_model(f"{name}:tiny()").model) == 2
    assert hidden(load_model(f"{name}:tiny").model) == 2


@pytest.mark.parametrize(
    "use",
    [
        "self.inner = Block()",
        "self.inner = nn.ModuleList([Block() for _ in range(2)])",
        "self.inner = make(Block)",
        "self.inner = helper()",
        "self.inner = KINDS['block']()",
    ],
)
def test_a_class_that_another_builds_is_a_part_not_the_model(write: Write, use: str) -> None:
    text = f"""
from torch import nn
class Block(nn.Module): ...
def helper(): return Block()
def make(kind): return kind()
KINDS = {{'block': Block}}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        {use}
"""
    assert type(load_model(write("model.py", text)).model).__name__ == "Net"


def test_imported_classes_are_not_candidates(write: Write) -> None:
    name = write("model.py", NET + "from torch.nn import Identity, Linear\n")
    assert hidden(load_model(name).model) == 4


def test_more_than_one_model_lists_them_with_the_command_to_type(write: Write) -> None:
    name = write("model.py", NET + NEEDY.replace("Net", "Other") + "class Third(Net): ...\n")
    with pytest.raises(TargetError) as caught:
        load_model(name)
    assert caught.value.message == "model.py holds more than one model: Net, Third"
    assert caught.value.hint == ("candidates: Net(hidden=4); Third(hidden=4)\ntype: model.py:Net")


def test_a_constructor_that_needs_more_says_what(write: Write) -> None:
    with pytest.raises(TargetError) as caught:
        load_model(write("model.py", NEEDY))
    assert caught.value.message == (
        "model.py holds no model that can be built (Net: missing a required argument: 'hidden')"
    )
    assert caught.value.hint == "candidates: Net(hidden)\ntype: model.py:Net --arg hidden=…"


def test_arguments_that_a_named_class_does_not_take_are_bad_usage(write: Write) -> None:
    name = write("model.py", NET)
    with pytest.raises(UsageError, match="got an unexpected keyword argument 'hiden'"):
        load_model(f"{name}:Net", {"hiden": 3})


def test_names_that_are_missing_or_no_models_are_errors(write: Write) -> None:
    name = write("model.py", NET + "size = 3\ndef number(): return 3\n")
    with pytest.raises(TargetError, match=r"model\.py has no Nett") as caught:
        load_model(f"{name}:Nett")
    assert "Net(hidden=4)" in caught.value.hint
    with pytest.raises(TargetError, match=r"model\.py:size is an int, not a model"):
        load_model(f"{name}:size")
    with pytest.raises(TargetError, match=r"number\(\) gave an int, not a model"):
        load_model(f"{name}:number()")


def test_a_file_without_models_says_so(write: Write) -> None:
    with pytest.raises(TargetError, match=r"model\.py holds no nn\.Module"):
        load_model(write("model.py", "x = 1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise ValueError('no data')\n", "model.py:2: ValueError: no data (while"),
        ("def f(:\n", "model.py:1: SyntaxError: invalid syntax (while importing model.py)"),
        ("import missing_thing\n", "model.py:1: ModuleNotFoundError: No module named"),
        ("\nraise SystemExit(3)\n", "model.py:2: the file ended the program with exit(3)"),
        ("def f():\n    1 / 0\nf()\n", "model.py:2: ZeroDivisionError: division by zero"),
    ],
)
def test_what_the_file_raises_is_shown_with_its_line(write: Write, text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(write("model.py", text))
    assert caught.value.message.startswith(message)


def test_what_the_constructor_raises_is_shown_with_its_line(write: Write) -> None:
    text = NET + "        raise RuntimeError('odd  hidden\\nsize')\n"
    for build in ("real", "meta", "fake"):
        with pytest.raises(ModelError) as caught:
            load_model(write("model.py", text), build=build)
        assert caught.value.message == (
            "model.py:7: RuntimeError: odd hidden size (while building Net of model.py)"
        )
        assert caught.value.hint == "raise RuntimeError('odd  hidden\\nsize')"


def test_an_interrupt_stays_an_interrupt_and_leaves_nothing_behind(write: Write) -> None:
    path = sys.path[:]
    with pytest.raises(KeyboardInterrupt):
        load_model(write("model.py", "raise KeyboardInterrupt\n"))
    assert sys.path == path
    assert "model" not in sys.modules


def test_the_interpreter_is_left_as_it_was(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("helper_of_model.py", "size = 11\n")
    text = NET.replace("hidden=4", "hidden=helper_of_model.size")
    text = "import sys, helper_of_model\nprint('hello', sys.argv[1:])\n" + text
    path, argv, modules = sys.path[:], sys.argv[:], set(sys.modules)
    assert hidden(load_model(write("model.py", text)).model) == 11
    assert (sys.path, sys.argv) == (path, argv)
    assert {"model", "helper_of_model"}.isdisjoint(set(sys.modules) - modules)
    assert capsys.readouterr() == ("", "hello []\n")


def test_two_files_of_one_name_with_helpers_of_one_name(write: Write) -> None:
    for folder, size in (("a", 3), ("b", 5)):
        write(f"{folder}/sizes.py", f"size = {size}\n")
        write(f"{folder}/model.py", "import sizes\n" + NET.replace("=4", "=sizes.size"))
    assert [hidden(load_model(f"{each}/model.py").model) for each in "aba"] == [3, 5, 3]


def test_imports_inside_the_constructor_work_too(write: Write) -> None:
    write("sizes.py", "size = 6\n")
    text = NET.replace("hidden)", "__import__('sizes').size)")
    assert hidden(load_model(write("model.py", text)).model) == 6


@pytest.mark.parametrize("name", ["json.py", "my-model.py", "2nd model.py", "torch.py"])
def test_any_file_name_will_do(write: Write, name: str) -> None:
    before = sys.modules["torch"]
    assert hidden(load_model(write(name, "import json\n" + NET)).model) == 4
    assert sys.modules["torch"] is before
    assert hasattr(sys.modules["json"], "dumps")


def test_a_file_in_a_package_with_relative_imports(write: Write) -> None:
    write("pkg/__init__.py", "")
    write("pkg/sizes.py", "size = 12\n")
    write("pkg/sub/__init__.py", "")
    write("pkg/sub/near.py", "near = 1\n")
    text = "from ..sizes import size\nfrom .near import near\n" + NET.replace("=4", "=size+near")
    loaded = load_model(write("pkg/sub/model.py", text)).model
    assert hidden(loaded) == 13
    assert type(loaded).__module__ == "pkg.sub.model"
    assert not [name for name in sys.modules if name.split(".")[0] == "pkg"]


def test_relative_imports_without_a_package_file(write: Write) -> None:
    write("loose/sizes.py", "size = 12\n")
    text = "from .sizes import size\n" + NET.replace("=4", "=size")
    assert hidden(load_model(write("loose/model.py", text)).model) == 12


def test_an_importable_object() -> None:
    loaded = load_model("torch.nn:Linear", {"in_features": 2, "out_features": 3})
    assert repr(loaded.model) == "Linear(in_features=2, out_features=3, bias=True)"
    with pytest.raises(ModelError, match="No module named 'no_such_pkg'"):
        load_model("no_such_pkg.x:Net")


def test_a_model_too_big_for_any_memory_is_built_without_bytes(write: Write) -> None:
    text = NET.replace("hidden=4", "hidden=10**12")
    for build, device in (("meta", "meta"), ("fake", "cpu")):
        loaded = load_model(write("model.py", text), build=build)  # type: ignore[arg-type]
        weight = loaded.model.get_parameter("fc.weight")
        assert (loaded.built, tuple(weight.shape)) == (build, (10**12, 3))
        assert (weight.device.type, loaded.device) == (device, "cpu")


def test_a_constructor_that_needs_values_is_built_for_real(write: Write) -> None:
    text = NET.replace("hidden=4", "hidden=None").replace(
        "hidden)", "int(__import__('torch').linspace(0, 9, 10)[5].item()))"
    )
    for build in ("meta", "fake"):
        loaded = load_model(write("model.py", text), build=build)
        assert (loaded.built, hidden(loaded.model)) == ("real", 5)
        assert loaded.rebuild() is loaded.model


def test_a_hollow_model_can_be_built_again_for_real(write: Write) -> None:
    loaded = load_model(write("model.py", NET), build="fake")
    again = loaded.rebuild()
    assert type(again.get_parameter("fc.bias").data).__name__ == "Tensor"
    assert again.get_parameter("fc.bias").abs().sum().item() > 0


def test_devices(write: Write) -> None:
    name = write("model.py", NET)
    assert load_model(name, device="meta").model.get_parameter("fc.bias").is_meta
    assert load_model(name, device="cpu").built == "real"
    with pytest.raises(UsageError, match="'gpu' is no device"):
        load_model(name, device="gpu")
    with pytest.raises(UsageError, match="there is no cuda:77 on this machine"):
        load_model(name, device="cuda:77")
