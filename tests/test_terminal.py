"""Reports as a terminal shows them: long settings broken where a reader would break them."""

import io

import pytest
from rich.console import Console
from torch import nn

from modtool.api.inspecting import summary
from modtool.cli.terminal import drawn, rich_table, tree_lines
from modtool.report.tables import Column, Report, Table


@pytest.mark.parametrize(
    ("room", "lines"),
    [
        (60, ["  (fc): Linear(in_features=784, out_features=256, bias=True)"]),
        (40, ["  (fc): Linear(in_features=784,", "      out_features=256, bias=True)"]),
        (
            24,
            [
                "  (fc): Linear(",
                "      in_features=784,",
                "      out_features=256,",
                "      bias=True)",
            ],
        ),
    ],
)
def test_settings_break_between_each_other(room: int, lines: list[str]) -> None:
    text = "  (fc): Linear(in_features=784, out_features=256, bias=True)"
    assert tree_lines(text, room) == lines


def test_a_tuple_is_not_torn() -> None:
    assert tree_lines("(0): Conv2d(3, 16, kernel_size=(3, 3), stride=(1, 1))", 36) == [
        "(0): Conv2d(3, 16,",
        "    kernel_size=(3, 3),",
        "    stride=(1, 1))",
    ]


def test_a_table_of_eighty_columns() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Linear(16, 10))
    console = Console(width=80, file=io.StringIO(), no_color=True)
    console.print(rich_table(summary(model).tables[0], 80))
    assert isinstance(console.file, io.StringIO)
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "module                             parameters  trainable  shape",
        "Sequential()                              618        618",
        "  (0): Conv2d(3, 16,                      448        448  weight [16, 3, 3, 3]",
        "      kernel_size=(3, 3),                                 bias [16]",
        "      stride=(1, 1),",
        "      padding=(1, 1))",
        "  (1): ReLU()                               0          0",
        "  (2): Linear(in_features=16,             170        170  weight [10, 16]",
        "      out_features=10, bias=True)                         bias [10]",
    ]


def test_a_code_is_not_broken_where_there_is_room_for_it() -> None:
    target, finding = (Column(name, name, "") for name in ("target", "finding"))
    columns = target, Column("code", "code", "", "word"), finding
    table = Table(columns, (("folder/of/the/checkpoint.pth", "saved-in-train-mode", "a " * 20),))
    console = Console(width=56, file=io.StringIO(), no_color=True)
    console.print(rich_table(table, 56))
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[1].split()[1] == "saved-in-train-mode"
    assert max(map(len, lines)) <= 56
    narrow = Console(width=40, file=io.StringIO(), no_color=True)
    narrow.print(rich_table(table, 40))
    assert isinstance(narrow.file, io.StringIO)
    assert max(map(len, narrow.file.getvalue().splitlines())) == 40


def test_names_stay_where_numbers_leave_no_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [Column(text, text, "", "number") for text in ("mean before", "std before", "mean")]
    table = Table((Column("name", "tensor", ""), *numbers), (("backbone.0.weight", 1.5, 2.5, 3.5),))
    monkeypatch.setenv("COLUMNS", "30")
    assert drawn(Report(dict, lambda: (table,)), color=False).splitlines() == [
        "tensor            mean before  std before  mean",
        "backbone.0.weigh          1.5         2.5   3.5",
        "t                                              ",
        "",
        "",
    ]


def test_colour_is_the_only_reason_for_an_escape_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    report = summary(nn.Linear(2, 2))
    assert "\x1b[" in drawn(report, color=True)
    assert "\x1b" not in drawn(report, color=False)
