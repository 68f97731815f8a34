"""`modtool check` of several targets: folders, what cannot be read, forms of output, settings."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import save

from modtool.api.checking import check, check_all
from modtool.api.pools import at_once
from modtool.checks.explanations import explained
from modtool.checks.records import Checked, Failure, Questions
from modtool.errors import UsageError
from modtool.notes import CODES
from tests.conftest import Ran
from tests.formats.test_dcp import save as save_distributed

Modtool = Callable[..., Ran]
EXAMPLES = Path(__file__).parents[1] / "examples"
WRAPPED = {"module.w": torch.zeros(2)}
WASTEFUL = {"w": torch.zeros(100, 1000)[:2]}


def findings(ran: Ran) -> list[tuple[str, str]]:
    return [(each["target"], each["code"]) for each in json.loads(ran.out)["findings"]]


def test_a_folder_is_searched_and_told_in_the_order_of_names(modtool: Modtool) -> None:
    Path("runs/b").mkdir(parents=True)
    torch.save(WRAPPED, "runs/z.pth")
    torch.save(WASTEFUL, "runs/b/x.pth")
    save_file({"w": torch.zeros(2)}, "runs/a.safetensors", metadata={"format": "pt"})
    ran = modtool("check", "runs", "--json")
    assert ran.code == 1
    assert findings(ran) == [
        ("runs/b/x.pth", "oversized-storage"),
        ("runs/z.pth", "wrapped-names"),
    ]
    document = json.loads(ran.out)
    assert [each["target"] for each in document["targets"]] == [
        "runs/a.safetensors",
        "runs/b/x.pth",
        "runs/z.pth",
    ]
    assert document["target"] is None


def test_what_is_named_twice_is_checked_once(modtool: Modtool) -> None:
    Path("runs").mkdir()
    torch.save(WRAPPED, "runs/z.pth")
    ran = modtool("check", "runs/z.pth", "runs", "--json")
    assert findings(ran) == [("runs/z.pth", "wrapped-names")]
    assert json.loads(ran.out)["target"] == "runs/z.pth"


def test_one_that_cannot_be_read_does_not_keep_the_others_from_it(modtool: Modtool) -> None:
    torch.save(WASTEFUL, "x.pth")
    Path("broken.pth").write_bytes(b"PK\x03\x04 and no more")
    ran = modtool("check", "gone.pth", "broken.pth", "x.pth", "--json")
    assert ran.code == 2
    assert findings(ran) == [("x.pth", "oversized-storage")]
    errors = json.loads(ran.out)["errors"]
    assert [each["target"] for each in errors] == ["gone.pth", "broken.pth"]
    assert errors[0]["message"] == "gone.pth: no such file or directory"
    assert ran.err.startswith("error: gone.pth: no such file or directory\n  check the path")


def test_a_folder_with_nothing_in_it_is_an_error(modtool: Modtool) -> None:
    Path("runs").mkdir()
    ran = modtool("check", "runs")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: runs: no checkpoint in this folder or below it\n  name the file itself\n"
    )


def test_a_folder_that_is_of_another_program_is_named_for_what_it_is(modtool: Modtool) -> None:
    Path("export").mkdir()
    Path("export/saved_model.pb").write_bytes(b"")
    ran = modtool("check", "export")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: export: a TensorFlow SavedModel\n"
        "  load it in TensorFlow, and save its weights as a PyTorch state_dict\n"
    )


def test_an_index_that_leads_away_is_an_error_beside_what_can_be_read(modtool: Modtool) -> None:
    torch.save(WASTEFUL, "x.pth")
    Path("model.safetensors.index.json").write_text('{"weight_map": {"w": "../../w.safetensors"}}')
    ran = modtool("check", ".", "--json")
    assert ran.code == 2
    assert findings(ran) == [("x.pth", "oversized-storage")]
    assert json.loads(ran.out)["errors"] == [
        {
            "target": "model.safetensors.index.json",
            "message": "model.safetensors.index.json: it names a file outside its folder: "
            "'../../w.safetensors'",
            "hint": "nothing was opened; correct the name if you trust the rest",
        }
    ]


def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    paths = []
    for number in range(6):
        paths.append(str(tmp_path / f"{number}.pth"))
        torch.save(WASTEFUL if number % 2 else WRAPPED, paths[-1])
    Path(paths[4]).write_bytes(b"")
    seen: list[tuple[int, int]] = []
    one = check_all(paths, Questions())
    two = check_all(
        paths, Questions(), processes=2, progress=lambda done, total, _: seen.append((done, total))
    )
    assert one == two
    assert [each.target for each in two] == paths
    assert seen == [(number, 6) for number in range(1, 7)]
    failure = two[4].failure
    assert failure is not None
    assert failure.message == f"{paths[4]}: an empty file"


def killed(target: str) -> Checked:
    """What happens to a process that takes too much memory."""
    os._exit(9)


def test_a_process_that_is_killed_is_a_failure_and_no_hang() -> None:
    (found,) = at_once(["x.pth"], killed, 1, None)
    assert found.failure == Failure(
        "x.pth: not checked, as a process that reads files was killed",
        "was there too little memory?",
    )


def test_a_target_is_called_what_it_was_called(modtool: Modtool) -> None:
    with pytest.warns(UserWarning, match="single process"):
        save({"w": torch.zeros(2)}, checkpoint_id="step", no_dist=True)
    torch.save(WRAPPED, "x.pth")
    document = json.loads(modtool("check", "step/.metadata", "./x.pth", "--json").out)
    assert [each["target"] for each in document["targets"]] == ["step/.metadata", "./x.pth"]


def test_models_are_checked_beside_checkpoints(modtool: Modtool) -> None:
    shutil.copy(EXAMPLES / "mlp.py", "model.py")
    torch.save(WRAPPED, "x.pth")
    asked = ("--input-shape", "2,784", "--assert", "params == 235146", "--json")
    document = json.loads(modtool("check", "model.py", "x.pth", *asked).out)
    assert [(each["target"], each["code"]) for each in document["findings"]] == [
        ("x.pth", "assertion-failed"),
        ("x.pth", "wrapped-names"),
    ]
    assert [each["holds"] for each in document["targets"][0]["assertions"]] == [True]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["x.pth", "--input-shape", "2,784"], "an input is for models, and x.pth is a checkpoint"),
        (["x.pth", "--weights", "y.pth"], "--weights is for models, and x.pth is a checkpoint"),
        (["model.py", "--values"], "--values is for checkpoints, and model.py is a model"),
        (
            ["model.py", "--model", "model.py"],
            "--model is for checkpoints, and model.py is a model",
        ),
        (["x.pth", "--model", "x.pth"], "--model x.pth: that is a checkpoint"),
        (["--explain", ""], "there is no code ''"),
    ],
)
def test_what_does_not_fit_the_target(modtool: Modtool, arguments: list[str], error: str) -> None:
    shutil.copy(EXAMPLES / "mlp.py", "model.py")
    torch.save(WRAPPED, "x.pth")
    ran = modtool("check", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {error}\n")


def test_whether_a_definition_loads_each_of_several(modtool: Modtool) -> None:
    shutil.copy(EXAMPLES / "mlp.py", "model.py")
    modtool("freeze", "model.py", "fc1", "-o", "start.pth")
    torch.save(WRAPPED, "x.pth")
    ran = modtool("check", "start.pth", "x.pth", "--model", "model.py", "--json")
    assert (ran.code, findings(ran)) == (
        1,
        [("x.pth", "does-not-load"), ("x.pth", "wrapped-names")],
    )


def test_the_table_names_the_target_and_each_remedy_once(modtool: Modtool) -> None:
    torch.save(WRAPPED, "a.pth")
    torch.save(WRAPPED, "b.pth")
    ran = modtool("check", "a.pth", "b.pth")
    assert (ran.code, ran.err) == (0, "")
    message = "1 of 1 names contains 'module.', which DataParallel or DistributedDataParallel "
    message += "puts there"
    assert ran.out == (
        "target  level  code           where     finding\n"
        "──────  ─────  ─────────────  ────────  ───────\n"
        f"a.pth   note   wrapped-names  module.w  {message}\n"
        f"b.pth   note   wrapped-names  module.w  {message}\n"
        "\n"
        "what to do\n"
        "code           what to do\n"
        "─────────────  ──────────\n"
        "wrapped-names  modtool convert --strip-prefix module. takes it away\n"
        "\n"
        "torch.load(…, weights_only=True) accepts 2 of 2 pickled files\n"
        "\n"
        "targets 2   findings 2   notes 2\n"
    )


def test_csv_has_all_in_one_table(modtool: Modtool) -> None:
    torch.save({"w": torch.zeros(1)}, "fine.pth")
    assert modtool("check", "fine.pth", "--format", "csv").out == (
        "target,level,code,where,message,remedy\r\n"
    )


def test_annotations_for_github_are_escaped(modtool: Modtool) -> None:
    torch.save({"module.50%,\n": torch.zeros(2)}, "a:b,c.pth")
    ran = modtool("check", "a:b,c.pth", "gone.pth", "--format", "github")
    assert ran.code == 2
    assert ran.out.splitlines() == [
        "::notice file=a%3Ab%2Cc.pth,title=modtool wrapped-names::module.50%25,%0A: "
        "1 of 1 names contains 'module.', which DataParallel or DistributedDataParallel puts "
        "there%0A"
        "modtool convert --strip-prefix module. takes it away",
        "::error file=gone.pth,title=could not be checked::gone.pth: no such file or directory%0A"
        "check the path; a model is named as model.py, model.py:Net or pkg.module:Net",
    ]


# -- which codes, and from which level on ------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--select", "wrapped-names,oversized"], ["oversized-storage", "wrapped-names"]),
        (["--select", "over", "--select", "wrapped"], ["oversized-storage", "wrapped-names"]),
        (["--select", "wrapped", "--ignore", "wrapped-names"], []),
        (["--ignore", "wrapped", "--select", "wrapped-names"], ["wrapped-names"]),
        (["--select", "wrapped", "--ignore", "wrapped"], []),
        (["--ignore", "o,w"], []),
    ],
)
def test_the_longer_beginning_of_a_code_decides(
    modtool: Modtool, options: list[str], left: list[str]
) -> None:
    torch.save({**WASTEFUL, **WRAPPED}, "x.pth")
    assert [code for _, code in findings(modtool("check", "x.pth", "--json", *options))] == left


def test_settings_stand_in_the_nearest_pyproject(
    modtool: Modtool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("deep/er").mkdir(parents=True)
    Path("pyproject.toml").write_text(
        '[tool.modtool]\nignore = ["oversized-storage"]\nfail-on = "note"\n'
    )
    monkeypatch.chdir("deep/er")
    torch.save({**WASTEFUL, **WRAPPED}, "x.pth")
    ran = modtool("check", "x.pth", "--json")
    assert (ran.code, findings(ran)) == (1, [("x.pth", "wrapped-names")])
    ran = modtool("check", "x.pth", "--json", "--ignore", "wrapped", "--fail-on", "error")
    assert (ran.code, findings(ran)) == (0, [("x.pth", "oversized-storage")])


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ('ignore = ["nonsense-xyz"]', "there is no code 'nonsense-xyz'\n"),
        ('ignore = "wrapped"', '[tool.modtool] ignore is to be a list: ["…", "…"]\n'),
        ('fail-on = "never"', "[tool.modtool] fail-on = 'never'\n  one of error, warning, note\n"),
        ("fail-on = 1", "[tool.modtool] fail-on is to be text\n"),
        ('ignor = ["wrapped"]', "[tool.modtool] has no key 'ignor'\n  nearest: ignore\n"),
        ('fail_on = "note"', "[tool.modtool] has no key 'fail_on'\n  nearest: fail-on\n"),
        (
            "colour = false",
            "[tool.modtool] has no key 'colour'\n  one of model, select, ignore, fail-on\n",
        ),
    ],
)
def test_a_setting_that_means_nothing(modtool: Modtool, setting: str, error: str) -> None:
    Path("pyproject.toml").write_text(f"[tool.modtool]\n{setting}\n")
    ran = modtool("check", "x.pth")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {Path.cwd()}/pyproject.toml: {error}")


# -- --explain ---------------------------------------------------------------------------------


def test_a_code_is_explained(modtool: Modtool) -> None:
    ran = modtool("check", "--explain", "device")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "device-location (note): tensors saved from a device that a machine may not have\n"
        "\n"
        "`torch.load` puts every tensor back on the device that it was saved from, and stops with "
        "an error where that device is not there.\n"
        "\n"
        '    torch.save(model.cuda().state_dict(), "model.pth")\n'
        "\n"
        'What to do: load with map_location="cpu", or rewrite it: '
        "modtool convert --map-location cpu\n"
    )


def test_an_explanation_as_json(modtool: Modtool) -> None:
    document = json.loads(modtool("check", "--explain", "nan-values", "--json").out)
    assert list(document) == ["schema", "code", "level", "meaning", "why", "example", "remedy"]
    assert document["meaning"] == CODES["nan-values"][1] == explained("nan-values").meaning


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("over", "'over' is the beginning of several codes\n  overflows-fp16, overflows-bf16, "),
        ("executes_code", "there is no code 'executes_code'\n  nearest: executes-code"),
    ],
)
def test_what_is_not_one_code(modtool: Modtool, code: str, error: str) -> None:
    ran = modtool("check", "--explain", code)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {error}")


# -- --assert ----------------------------------------------------------------------------------


def test_assertions_hold_or_are_findings(modtool: Modtool) -> None:
    model = nn.Linear(4, 3)
    model.bias.requires_grad_(False)
    torch.save(model, "full.pth")
    held = "params < 1k and frozen == 3"
    ran = modtool("check", "full.pth", "--assert", held, "--assert", "trainable/params<50%")
    assert ran.code == 1
    assert "error  assertion-failed         trainable/params<50% does not hold: " in ran.out
    assert "trainable = 12, params = 15\n" in ran.out
    assert f"\nholds: {held}\n" in ran.out
    ran = modtool("check", "full.pth", "--assert", held, "--ignore", "assertion", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["assertions"] == [
        {"text": held, "holds": True, "values": {"params": 15, "frozen": 3}}
    ]


def test_an_assertion_cannot_be_ignored(modtool: Modtool) -> None:
    torch.save({"w": torch.zeros(2)}, "x.pth")
    ran = modtool("check", "x.pth", "--assert", "params > 2", "--ignore", "assertion-failed")
    assert ran.code == 1


def test_an_assertion_about_nothing_says_so(modtool: Modtool) -> None:
    torch.save({"w": torch.zeros(2)}, "x.pth")
    ran = modtool("check", "x.pth", "--assert", "1 < 3 < 2")
    assert ran.code == 1
    assert "1 < 3 < 2 does not hold: it names no key of count\n" in ran.out


def test_an_assertion_on_what_is_not_known(modtool: Modtool) -> None:
    torch.save({"w": torch.zeros(2)}, "x.pth")
    ran = modtool("check", "x.pth", "--assert", "frozen == 0")
    assert ran.code == 2
    assert ran.err == (
        "error: --assert 'frozen == 0': x.pth does not record which are frozen\n"
        "                 ^\n"
    )


def test_an_assertion_that_is_none_stops_before_anything_is_read(modtool: Modtool) -> None:
    ran = modtool("check", "gone.pth", "--assert", "params <")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: --assert 'params <': expected a number or a key of count\n")


# -- the library -------------------------------------------------------------------------------


def test_the_library_has_the_same_verb(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({**WASTEFUL, **WRAPPED}, path)
    found = check(path, ignore=["wrapped"], assertions=["params < 5"])
    assert [note.code for note in found.findings] == ["assertion-failed", "oversized-storage"]
    with pytest.raises(UsageError, match="--weights is for models"):
        check(path, weights="y.pth")


def test_checking_a_file_imports_nothing_heavy(tmp_path: Path) -> None:
    torch.save(WASTEFUL, tmp_path / "x.pth")
    script = (
        "import sys; from modtool.cli import run; code = run(['check', 'x.pth']); "
        "heavy = {'torch', 'numpy', 'rich', 'multiprocessing'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env=os.environ,
    )
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_file_of_a_distributed_checkpoint_means_the_whole(modtool: Modtool) -> None:
    save_distributed({"w": torch.zeros(3)}, Path("dist"))
    (part,) = Path("dist").glob("*.distcp")
    ran = modtool("check", str(part), "dist/.metadata", "--json")
    found = json.loads(ran.out)["targets"]
    assert (ran.code, [each["target"] for each in found]) == (0, ["dist/.metadata"])


def test_several_files_are_read_at_once_and_found_in_their_order(tmp_path: Path) -> None:
    paths = []
    for number in range(5):
        paths.append(str(tmp_path / f"{number}.pth"))
        torch.save({"w": torch.full((1000 * (number + 1),), float(number))}, paths[-1])
    Path(paths[2]).write_bytes(b"")
    threads = torch.get_num_threads()
    seen: list[tuple[int, int, str]] = []
    one = check_all(paths, Questions(values=True))
    several = check_all(
        paths, Questions(values=True), processes=3, progress=lambda *told: seen.append(told)
    )
    assert one == several
    assert [each.target for each in several] == paths
    assert [[note.code for note in each.findings] for each in several] == [
        ["zero-tensors"],
        ["constant-tensors"],
        [],
        ["constant-tensors"],
        ["constant-tensors"],
    ]
    total = sum(Path(path).stat().st_size for path in paths)
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert seen[-1][:2] == (total, total)
    assert {path for *_, path in seen} == {path for path in paths if path != paths[2]}
    assert torch.get_num_threads() == threads


def test_reading_stops_where_whoever_watches_interrupts(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.pth") for number in range(8)]
    for path in paths:
        torch.save({name: torch.zeros(100) for name in "abcdefgh"}, path)
    seen: list[str] = []

    def interrupt(done: int, total: int, target: str) -> None:
        seen.append(target)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_all(paths, Questions(values=True), processes=2, progress=interrupt)
    assert len(seen) <= 4
