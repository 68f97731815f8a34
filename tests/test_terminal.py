"""Reports as a terminal shows them: long settings broken where a reader would break them."""

import io

import pytest
import torch
from rich.console import Console
from torch import nn

from modtool.api.inspecting import summary
from modtool.cli.terminal import drawn, rich_table, sheet, tree_lines
from modtool.live.inputs import parse_inputs
from modtool.live.trace import trace
from modtool.report.tables import Column, Report, Table
from modtool.report.tracing import trace_report


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
    console.print(rich_table(sheet(summary(model).tables[0]), 80))
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
    console.print(rich_table(sheet(table), 56))
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[1].split()[1] == "saved-in-train-mode"
    assert max(map(len, lines)) <= 56
    narrow = Console(width=40, file=io.StringIO(), no_color=True)
    narrow.print(rich_table(sheet(table), 40))
    assert isinstance(narrow.file, io.StringIO)
    assert max(map(len, narrow.file.getvalue().splitlines())) == 40


def test_columns_that_have_no_room_beside_the_others_follow_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = [Column(text, text, "", "number") for text in ("mean before", "std before", "mean")]
    table = Table((Column("name", "tensor", ""), *numbers), (("backbone.0.weight", 1.5, 2.5, 3.5),))
    monkeypatch.setenv("COLUMNS", "35")
    assert [line.rstrip() for line in drawn_lines(table)] == [
        "tensor             mean before",
        "backbone.0.weight          1.5",
        "",
        "tensor             std before  mean",
        "backbone.0.weight         2.5   3.5",
        "",
        "",
    ]


def drawn_lines(*tables: Table) -> list[str]:
    return drawn(Report(dict, lambda: tables), color=False).splitlines()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cross_attention_projection = nn.MultiheadAttention(16, 2, batch_first=True)
        self.feed_forward_intermediate = nn.Linear(16, 16)

    def forward(self, queries: torch.Tensor, memory_of_encoder: torch.Tensor) -> object:
        x, weights = self.cross_attention_projection(queries, memory_of_encoder, memory_of_encoder)
        return {"decoded": self.feed_forward_intermediate(x), "weights": weights}


def test_a_trace_of_long_names_stays_within_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    model = Block()
    found = trace(model, parse_inputs(["2,5,16", "2,7,16"], model))
    (table,) = trace_report(found).tables
    assert [line.rstrip() for line in drawn_lines(table)] == [
        "call                      input         output        parameters    MACs",
        "(model)                   queries [2,   decoded [2,        1,360  17,088",
        "                          5, 16]        5, 16]",
        "                          memory_of_en  weights [2,",
        "                          coder [2, 7,  5, 7]",
        "                          16]",
        "  cross_attention_projec  [2, 5, 16]    [2, 5, 16]         1,088  14,528",
        "      tion:               [2, 7, 16]    [2, 5, 7]",
        "      MultiheadAttention  [2, 7, 16]",
        "  feed_forward_intermedi  [2, 5, 16]    [2, 5, 16]           272   2,560",
        "      ate: Linear",
        "",
        "",
    ]


@pytest.mark.parametrize("statistics", [False, True])
def test_no_line_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, statistics: bool
) -> None:
    model = Block()
    inputs = parse_inputs(["2,5,16", "2,7,16"], model)
    found = trace(model, inputs, statistics=statistics, backward=True)
    tables = trace_report(found).tables
    for width in range(60, 140):
        monkeypatch.setenv("COLUMNS", str(width))
        assert max(map(len, drawn_lines(*tables))) <= width


def test_statistics_stand_beside_the_outputs_that_they_are_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    model = Block().requires_grad_(False)
    for each in model.parameters():
        each.zero_()
    found = trace(model, parse_inputs(["2,5,16", "2,7,16"], model), statistics=True)
    (table,) = trace_report(found).tables
    assert [line.rstrip() for line in drawn_lines(table)] == [
        "call                         output                mean  std",
        "(model)                      decoded [2, 5, 16]       0    0",
        "                             weights [2, 5, 7]   0.1429    0",
        "  cross_attention_projectio  [2, 5, 16]               0    0",
        "      n: MultiheadAttention  [2, 5, 7]           0.1429    0",
        "  feed_forward_intermediate  [2, 5, 16]               0    0",
        "      : Linear",
        "",
        "call                            min     max  zeros  NaN  Inf",
        "(model)                           0       0      1    0    0",
        "                             0.1429  0.1429      0    0    0",
        "  cross_attention_projectio       0       0      1    0    0",
        "      n: MultiheadAttention  0.1429  0.1429      0    0    0",
        "  feed_forward_intermediate       0       0      1    0    0",
        "      : Linear",
        "",
        "",
    ]


def test_colour_is_the_only_reason_for_an_escape_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    report = summary(nn.Linear(2, 2))
    assert "\x1b[" in drawn(report, color=True)
    assert "\x1b" not in drawn(report, color=False)
