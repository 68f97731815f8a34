"""What the source of a constructor tells, and models that cannot be built."""

from pathlib import Path

import pytest

from modtool.errors import ModelError
from modtool.live.lint import construction_note, lint_model
from modtool.live.load import load_model

HEAD = "from torch import nn\nimport torch\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model.py"


def told(path: Path, *statements: str) -> list[tuple[str, str, str]]:
    """Of a class with these statements in its constructor; the first stands in line 7."""
    path.write_text(HEAD + "".join(f"        {each}\n" for each in statements))
    model = load_model("model.py").model
    return [(found.code, found.where, found.message) for found in lint_model(model)]


FIRST = "super().__init__()"


@pytest.mark.parametrize(
    "statement",
    [
        "self.fc = nn.Linear(2, 2)",
        "self.scale = nn.Parameter(torch.ones(1))",
        "self.mean = nn.Buffer(torch.ones(1))",
        "self.register_buffer('mean', torch.ones(1))",
        "self.register_parameter('scale', nn.Parameter(torch.ones(1)))",
        "self.add_module('fc', nn.Linear(2, 2))",
        "self.register_forward_hook(print)",
    ],
)
def test_what_stands_before_init_is_told_with_its_line(written: Path, statement: str) -> None:
    with pytest.raises(ModelError) as caught:
        told(written, statement, FIRST)
    found = construction_note(caught.value)
    assert found is not None
    assert (found.code, found.level, found.where) == ("before-module-init", "error", "model.py:7")
    assert found.message == (
        f"`{statement}` runs before Module.__init__(), without which nothing can be registered"
    )
    assert found.remedy == "move super().__init__() to the top of Net.__init__"
    assert told(written, FIRST, statement.replace("print", "lambda *_: None")) == []


def test_a_constructor_that_never_calls_init_is_told_so(written: Path) -> None:
    with pytest.raises(ModelError) as caught:
        told(written, "self.fc = nn.Linear(2, 2)")
    found = construction_note(caught.value)
    assert found is not None
    assert found.remedy == "begin with super().__init__() in Net.__init__"


def test_a_model_without_init_that_can_be_built_is_told(written: Path) -> None:
    assert told(written, "self.depth = 3") == [
        (
            "before-module-init",
            "",
            "Net was built without Module.__init__(): it has no parameters, and every use of it "
            "fails",
        )
    ]


def test_another_error_of_a_constructor_is_the_users_own(written: Path) -> None:
    with pytest.raises(ModelError) as caught:
        told(written, FIRST, "self.fc = nn.Liner(2, 2)")
    assert construction_note(caught.value) is None
    with pytest.raises(ModelError) as caught:
        told(written, FIRST, "self.fc = self.missing")
    assert construction_note(caught.value) is None


def test_what_a_second_init_throws_away_is_told(written: Path) -> None:
    assert told(written, FIRST, "self.fc = nn.Linear(2, 2)", FIRST, "self.out = nn.ReLU()") == [
        (
            "lost-at-init",
            "fc",
            "`fc` is set at model.py:8, and lost in line 9, where Module.__init__() begins anew",
        )
    ]
    assert told(written, FIRST, "self.fc = nn.Linear(2, 2)", "self.out = nn.ReLU()") == []


def test_a_flag_that_init_overwrites_is_told(written: Path) -> None:
    assert [(code, where) for code, where, _ in told(written, "self.training = False", FIRST)] == [
        ("lost-at-init", "training")
    ]


def test_a_plain_attribute_set_before_init_is_kept_and_not_told(written: Path) -> None:
    assert told(written, "self.depth = 3", FIRST) == []


def test_a_child_that_is_set_twice_is_told(written: Path) -> None:
    assert told(written, FIRST, "self.a = nn.Linear(2, 2)", "self.a = nn.Linear(2, 2)") == [
        (
            "assigned-twice",
            "a",
            "`a` is set at model.py:8 and again in line 9, and the first one is lost",
        )
    ]
    assert told(written, FIRST, "self.a = nn.Linear(2, 2)", "self.b = nn.Linear(2, 2)") == []


@pytest.mark.parametrize(
    "between",
    [
        "self.a = nn.Sequential(self.a, nn.ReLU())",
        "self.apply(print); self.a = nn.ReLU()",
        "setattr(self, 'b', 1); self.a = nn.ReLU()",
        "if self.training: self.a = nn.Linear(3, 3)",
        "c = self.a; self.a = nn.Sequential(c)",
    ],
)
def test_a_child_that_is_used_before_it_is_set_again_is_not_told(
    written: Path, between: str
) -> None:
    assert told(written, FIRST, "self.a = nn.Linear(2, 2)", between) == []


def test_a_library_is_not_read(written: Path) -> None:
    written.write_text("from torch import nn\nmodel = nn.TransformerEncoderLayer(4, 2)\n")
    assert lint_model(load_model("model.py").model) == ()
