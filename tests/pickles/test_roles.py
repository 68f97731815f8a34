"""Which part of a training checkpoint is what, in the layouts of well-known trainers."""

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modtool.api.converting import convert
from modtool.api.inspecting import summary
from modtool.errors import UsageError
from modtool.formats import open_checkpoint
from modtool.pickles.display import display
from modtool.pickles.symbols import Call, Global
from modtool.records import Checkpoint
from modtool.report.totals import Totals, totals_of


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def weights() -> "OrderedDict[str, Tensor]":
    return OrderedDict(model().state_dict())


def optimizer() -> dict[str, object]:
    net = model()
    made = torch.optim.Adam(net.parameters())
    net(torch.rand(4, 3)).sum().backward()
    made.step()
    return made.state_dict()


def parameters() -> list[nn.Parameter]:
    return list(nn.Linear(3, 2).parameters())


def scheduler() -> dict[str, object]:
    sgd = torch.optim.SGD(model().parameters())
    return torch.optim.lr_scheduler.StepLR(sgd, 1).state_dict()


def wide() -> "OrderedDict[str, Tensor]":
    return OrderedDict(nn.Linear(30, 20).state_dict())


# What `torch.amp.GradScaler("cuda").state_dict()` gives.
SCALER = {
    "scale": 65536.0,
    "growth_factor": 2.0,
    "backoff_factor": 0.5,
    "growth_interval": 2000,
    "_growth_tracker": 0,
}


# What fastai 2.7 saves of an optimizer: `Optimizer.state_dict()`.
FASTAI = {
    "state": [{"grad_avg": torch.ones(2, 3), "sqr_avg": torch.ones(2, 3)}],
    "hypers": [{"lr": 0.1, "wd": 0.01}],
}


def opened(path: Path, value: object) -> Checkpoint:
    torch.save(value, path)
    return open_checkpoint(str(path))


def shown(path: Path, section: str | None = None) -> dict[str, Any]:
    return dict(summary(str(path), section=section).document)


def roles(found: Checkpoint) -> dict[str, str]:
    return {section.name: section.role for section in found.sections}


# What is saved -> name and role of every section, in order.
Case = tuple[Callable[[], object], Mapping[str, str]]
CASES: Mapping[str, Case] = {
    "a teacher below the model": (
        lambda: {"net": weights(), "teacher": {"model": weights()}, "epoch": 1},
        {"net": "model", "teacher.model": "other"},
    ),
    "PyTorch's tutorial": (
        lambda: {
            "epoch": 3,
            "model_state_dict": weights(),
            "optimizer_state_dict": optimizer(),
            "loss": torch.tensor(0.5),
        },
        {"model_state_dict": "model", "optimizer_state_dict": "optimizer", "loss": "other"},
    ),
    "Lightning": (
        lambda: {
            "epoch": 1,
            "state_dict": weights(),
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"ready": 1}}},
            "callbacks": {
                "ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.ones(1)}
            },
            "optimizer_states": [optimizer(), optimizer()],
            "lr_schedulers": [scheduler()],
        },
        {
            "state_dict": "model",
            "callbacks.ModelCheckpoint{'monitor': 'loss'}": "other",
            "optimizer_states": "optimizer",
            "lr_schedulers": "scheduler",
        },
    ),
    "Lightning, with metrics in its loops before the model": (
        lambda: {
            "loops": {"fit_loop": {"epoch_loop.state_dict": {"_results": {"loss": torch.ones(1)}}}},
            "callbacks": {"EMA": {"ema_weights": weights(), "cur_step": 3}},
            "state_dict": weights(),
        },
        {
            "loops.fit_loop.epoch_loop.state_dict": "other",
            "callbacks.EMA.ema_weights": "ema",
            "state_dict": "model",
        },
    ),
    "timm": (
        lambda: {
            "state_dict": weights(),
            "optimizer": optimizer(),
            "args": Namespace(lr=0.1),
            "amp_scaler": {"scale": torch.ones(1), "growth_factor": 2.0},
            "state_dict_ema": weights(),
        },
        {
            "state_dict": "model",
            "optimizer": "optimizer",
            "amp_scaler": "scaler",
            "state_dict_ema": "ema",
        },
    ),
    "nanoGPT": (
        lambda: {
            "model": weights(),
            "optimizer": optimizer(),
            "model_args": {"n_layer": 2},
            "best_val_loss": torch.tensor(2.0),
        },
        {"model": "model", "optimizer": "optimizer", "best_val_loss": "other"},
    ),
    "Megatron": (
        lambda: {
            "args": Namespace(a=1),
            "model": {
                "language_model": {
                    "embedding": {"word_embeddings": OrderedDict(weight=torch.ones(4, 3))},
                    "encoder": OrderedDict({"layers.0.weight": torch.ones(3, 3)}),
                }
            },
            "optimizer": {"optimizer": optimizer(), "fp32_from_fp16_params": [[torch.ones(2)]]},
            "rng_state": [{"cuda_rng_state": torch.zeros(8, dtype=torch.uint8)}],
        },
        {"model": "model", "optimizer": "optimizer", "rng_state": "other"},
    ),
    "Megatron with virtual stages": (
        lambda: {"model0": {"encoder": weights()}, "model1": {"encoder": weights()}},
        {"model0": "model", "model1": "model"},
    ),
    "fairseq": (
        lambda: {
            "args": None,
            "model": weights(),
            "criterion": {"weight": torch.ones(2)},
            "extra_state": {"epoch": 1},
            "last_optimizer_state": optimizer(),
        },
        {"model": "model", "criterion": "other", "last_optimizer_state": "optimizer"},
    ),
    "mmengine": (
        lambda: {
            "meta": {"epoch": 1},
            "state_dict": weights(),
            "ema_state_dict": weights(),
            "optimizer": optimizer(),
            "param_schedulers": [{"last_step": torch.ones(1)}],
        },
        {
            "state_dict": "model",
            "ema_state_dict": "ema",
            "optimizer": "optimizer",
            "param_schedulers": "scheduler",
        },
    ),
    "ultralytics": (
        lambda: {"epoch": -1, "model": model(), "ema": model(), "optimizer": optimizer()},
        {"model": "model", "ema": "ema", "optimizer": "optimizer"},
    ),
    "a GAN": (
        lambda: {
            "g": weights(),
            "d": weights(),
            "g_ema": weights(),
            "g_optim": optimizer(),
            "optD": optimizer(),
            "latent_avg": torch.ones(4),
        },
        {
            "g": "model",
            "d": "model",
            "g_ema": "ema",
            "g_optim": "optimizer",
            "optD": "optimizer",
            "latent_avg": "other",
        },
    ),
    "DINO": (
        lambda: {
            "student": weights(),
            "teacher": weights(),
            "dino_loss": {"center": torch.ones(1)},
        },
        {"student": "model", "teacher": "other", "dino_loss": "other"},
    ),
    "a teacher alone": (
        lambda: {"teacher": weights(), "epoch": 3},
        {"teacher": "model"},
    ),
    "a student beside a teacher's well-known name": (
        lambda: {"student": weights(), "teacher": {"model": wide()}, "optimizer": optimizer()},
        {"student": "model", "teacher.model": "other", "optimizer": "optimizer"},
    ),
    "a teacher before its student, both well named": (
        lambda: {"teacher": {"model": wide()}, "student": {"model": weights()}},
        {"teacher.model": "other", "student.model": "model"},
    ),
    "a policy beside a deeper target": (
        lambda: {"policy": weights(), "target": {"model": weights(), "steps": torch.ones(1)}},
        {"policy": "model", "target.model": "other", "target.steps": "other"},
    ),
    "small statistics outside of the model": (
        lambda: {"input_stats": {"mean": torch.ones(1)}, "trainer": {"model": wide()}},
        {"input_stats": "other", "trainer.model": "model"},
    ),
    "a body and a small head": (
        lambda: {"backbone": wide(), "head": OrderedDict(weight=torch.ones(1, 1))},
        {"backbone": "model", "head": "model"},
    ),
    "averaged weights alone, as ultralytics saves while it trains": (
        lambda: {"epoch": 3, "model": None, "ema": model(), "optimizer": optimizer()},
        {"ema": "model", "optimizer": "optimizer"},
    ),
    "two nets as modules": (
        lambda: {"netG": model(), "netD": model(), "optimizerG": optimizer()},
        {"netG": "model", "netD": "model", "optimizerG": "optimizer"},
    ),
    "nets in a list": (
        lambda: {"models": [weights(), weights()], "optimizers": [optimizer()], "epoch": 3},
        {"models": "model", "optimizers": "optimizer"},
    ),
    "nets by name": (
        lambda: {"models": {"enc": weights(), "dec": weights()}, "optimizer": optimizer()},
        {"models": "model", "optimizer": "optimizer"},
    ),
    "nets as modules in a list": (
        lambda: {"models": [model(), model()], "epoch": 3},
        {"models.0": "model", "models.1": "model"},
    ),
    "nets as modules by name": (
        lambda: {"nets": {"enc": model(), "ema": {"dec": model()}}, "optimizer": optimizer()},
        {"nets.enc": "model", "nets.ema.dec": "ema", "optimizer": "optimizer"},
    ),
    "nets with their optimizers in a list": (
        lambda: {"models": [{"net": weights(), "optimizer": optimizer()}], "epoch": 3},
        {"models": "other"},
    ),
    "fastai": (
        lambda: {"model": weights(), "opt": FASTAI},
        {"model": "model", "opt": "optimizer"},
    ),
    "torch_ema beside the model": (
        lambda: {"model": weights(), "shadow_params": list(model().parameters())},
        {"model": "model", "shadow_params": "ema"},
    ),
    "torch_ema alone": (
        lambda: {
            "decay": 0.99,
            "num_updates": 3,
            "shadow_params": [torch.ones(2, 3), torch.ones(2)],
            "collected_params": None,
        },
        {"shadow_params": "model"},
    ),
    "3D Gaussian Splatting": (
        lambda: ((3, *parameters(), torch.ones(2), optimizer(), 5.0), 30_000),
        {"0": "model", "0.3": "other", "0.4": "optimizer"},
    ),
    "parameters in a list": (
        lambda: [*parameters(), optimizer()],
        {"": "model", "2": "optimizer"},
    ),
    "parameters in a list by name": (
        lambda: {"params": parameters(), "opt": optimizer(), "epoch": 3},
        {"params": "model", "opt": "optimizer"},
    ),
    "tensors in a list, which nothing tells from any others": (
        lambda: {"weights": [torch.ones(2), torch.ones(3)], "opt": optimizer()},
        {"weights": "other", "opt": "optimizer"},
    ),
    "the state of optimizers in a list": (
        lambda: {"net": weights(), "opts": [optimizer(), optimizer()]},
        {"net": "model", "opts.0": "optimizer", "opts.1": "optimizer"},
    ),
    "what Trainer writes to rng_state.pth": (
        lambda: {
            "python": (3, (1, 2), None),
            "numpy": ("MT19937", [1, 2], 624),
            "cpu": torch.get_rng_state(),
            "cuda": torch.zeros(16, dtype=torch.uint8),
        },
        {"cpu": "other", "cuda": "other"},
    ),
    "integers beside two nets": (
        lambda: {
            "G": weights(),
            "D": weights(),
            "rng": {"cpu": torch.get_rng_state()},
            "kept": {"rows": torch.arange(9), "mask": torch.ones(9, dtype=torch.bool)},
        },
        {"G": "model", "D": "model", "rng": "other", "kept": "other"},
    ),
    "detectron2": (
        lambda: {
            "model": weights(),
            "optimizer": optimizer(),
            "scheduler": scheduler(),
            "iteration": 99,
        },
        {"model": "model", "optimizer": "optimizer", "scheduler": "scheduler"},
    ),
    "open_clip, with mixed precision": (
        lambda: {"epoch": 1, "state_dict": weights(), "optimizer": optimizer(), "scaler": SCALER},
        {"state_dict": "model", "optimizer": "optimizer", "scaler": "scaler"},
    ),
    "an optimizer that took no step": (
        lambda: {"net": weights(), "opt": torch.optim.SGD(model().parameters()).state_dict()},
        {"net": "model", "opt": "optimizer"},
    ),
    "what is only named like a scheduler": (
        lambda: {"net": weights(), "scheduler": "cosine", "scaler": None, "scheduler_args": {}},
        {"net": "model"},
    ),
    "two levels down": (
        lambda: {"trainer": {"model": {"state_dict": weights()}, "optimizer": optimizer()}},
        {"trainer.model.state_dict": "model", "trainer.optimizer": "optimizer"},
    ),
    "the best beside the last": (
        lambda: {"best_model": weights(), "model": weights(), "swa_model": weights()},
        {"best_model": "other", "model": "model", "swa_model": "ema"},
    ),
    "an optimizer alone": (optimizer, {"state": "optimizer"}),
    "an optimizer of fastai alone": (lambda: FASTAI, {"state": "optimizer"}),
    "an optimizer of one tensor alone": (
        lambda: {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        {"state": "optimizer"},
    ),
    "state that is no tensor in a model": (
        lambda: {"net_g": weights() | {"norm._extra_state": None}, "net_d": weights()},
        {"net_g": "model", "net_d": "model"},
    ),
    "weights at the root": (
        lambda: {"epoch": 3, "optimizer": optimizer(), **weights(), "queue": torch.ones(9)},
        {"optimizer": "optimizer", "": "model"},
    ),
    "the weights of one layer at the root": (
        lambda: {**wide(), "optimizer": optimizer(), "scheduler": scheduler()},
        {"": "model", "optimizer": "optimizer", "scheduler": "scheduler"},
    ),
    "weights at the root, and better ones": (
        lambda: {**weights(), "best": weights(), "meta": {"x": torch.ones(4)}},
        {"": "model", "best": "other", "meta": "other"},
    ),
    "weights at the root, beside those of what is called a model": (
        lambda: {**wide(), "model": weights(), "optimizer": optimizer()},
        {"": "other", "model": "model", "optimizer": "optimizer"},
    ),
    "losses at the root": (
        lambda: {"train.loss": torch.ones(1), "G": wide(), "D": wide(), "step": torch.ones(1)},
        {"": "other", "G": "model", "D": "model"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sections_of_well_known_trainers(tmp_path: Path, name: str) -> None:
    make, expected = CASES[name]
    found = opened(tmp_path / "x.pth", make())
    assert found.kind == "checkpoint"
    assert roles(found) == expected
    assert list(roles(found)) == list(expected)
    used = {tensor.section for tensor in found.tensors}
    shown = {part for part in expected if any(name.startswith(part) for name in found.values)}
    assert used <= set(expected) <= used | shown


# Section of a training checkpoint -> what `--section` shows of it, without a single tensor.
PLAIN_SECTIONS: Mapping[str, Mapping[str, object]] = {
    "scaler": {f"scaler.{name}": value for name, value in SCALER.items()},
    "scheduler": {
        "scheduler.step_size": 1,
        "scheduler.gamma": 0.1,
        "scheduler.base_lrs": [0.001],
        "scheduler.last_epoch": 0,
    },
}


@pytest.mark.parametrize("name", PLAIN_SECTIONS)
def test_sections_without_tensors_can_be_selected(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.pth"
    opened(path, {"model": weights(), "scheduler": scheduler(), "scaler": SCALER, "epoch": 3})
    document = shown(path, name)
    values = document["values"]
    assert PLAIN_SECTIONS[name].items() <= values.items()
    assert all(key.startswith(f"{name}.") for key in values)
    assert document["tensors"] == []
    assert document["totals"] == asdict(Totals(0, 0, 0, 0, 0, 0))
    whole = shown(path)["sections"]
    assert {"name": name, "role": name, "tensors": 0, "bytes": 0} in whole


def test_nets_in_a_list_are_counted_together(tmp_path: Path) -> None:
    found = opened(tmp_path / "x.pth", {"models": [weights(), wide()], "epoch": 3})
    assert [tensor.name for tensor in found.model_tensors] == [
        *(f"0.{name}" for name in weights()),
        *(f"1.{name}" for name in wide()),
    ]
    totals = totals_of(found.model_tensors)
    assert (totals.total, totals.buffers) == (12 + 620, 5)


def test_the_parameters_in_a_list_are_counted_without_what_lies_beside(tmp_path: Path) -> None:
    make, _ = CASES["3D Gaussian Splatting"]
    found = opened(tmp_path / "x.pth", make())
    assert [(tensor.name, tensor.full_name, tensor.numel) for tensor in found.model_tensors] == [
        ("1", "0.1", 6),
        ("2", "0.2", 2),
    ]
    assert (found.values["0.0"], found.values["1"]) == (3, 30_000)


def test_each_of_two_nets_has_a_tree_and_figures_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    opened(path, {"G": nn.Sequential(nn.Linear(3, 2)), "D": nn.Sequential(nn.Linear(9, 2))})
    modules = shown(path)["modules"]
    assert [(each["section"], each["path"], each["parameters"]) for each in modules] == [
        ("G", "", 8),
        ("G", "0", 8),
        ("D", "", 20),
        ("D", "0", 20),
    ]
    (table, *_) = summary(str(path), columns=["module", "parameters"]).tables
    assert table.rows == (
        ((0, "(all)"), 28),
        ((1, "(G): Sequential()"), 8),
        ((2, "(0): Linear(in_features=3, out_features=2, bias=True)"), 8),
        ((1, "(D): Sequential()"), 20),
        ((2, "(0): Linear(in_features=9, out_features=2, bias=True)"), 20),
    )
    alone = shown(path, "D")["modules"]
    assert [(each["path"], each["parameters"]) for each in alone] == [("", 20), ("0", 20)]


def test_of_two_sections_with_one_path_the_inner_is_numbered(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    inner, outer = weights(), wide()
    made = {"a": {"model": inner, "x": {"optimizer": optimizer()}}, "a.model": outer}
    assert roles(opened(path, made)) == {
        "a.model (2)": "other",
        "a.x.optimizer": "optimizer",
        "a.model": "model",
    }
    for name, state in (("a.model", outer), ("a.model (2)", inner)):
        written = str(tmp_path / f"{name}.pth")
        convert(path, written, section=name)
        read = torch.load(written, weights_only=True)
        assert list(read) == list(state)
        assert all(torch.equal(read[key], state[key]) for key in state)


def test_a_name_stands_for_the_sections_below_it(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    opened(path, {"models": [nn.Linear(3, 2), nn.Linear(9, 2)], "epoch": 3})
    whole = summary(str(path), section="models", columns=["path", "type", "parameters"])
    assert whole.tables[0].rows == (("", None, 28), ("0", "Linear", 8), ("1", "Linear", 20))
    opened(path, {"models": [nn.Linear(3, 2), wide()]})
    whole = summary(str(path), section="models", columns=["path", "type", "parameters"])
    assert whole.tables[0].rows == (("", None, 628), ("0", None, 8), ("1", None, 620))
    one_of = "has several sections below 'models'\nchoose one with --section: models.0, models.1"
    with pytest.raises(UsageError, match=one_of):
        convert(path, section="models")


def test_the_one_section_below_a_name(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    make, _ = CASES["Lightning"]
    opened(path, make())
    (score,) = shown(path, "callbacks")["tensors"]
    assert score["name"] == "ModelCheckpoint{'monitor': 'loss'}.best_model_score"
    convert(path, str(tmp_path / "score.pth"), section="callbacks")
    assert list(torch.load(tmp_path / "score.pth")) == ["best_model_score"]


def test_a_net_and_the_weights_of_another_are_drawn_together(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    discriminator = nn.Sequential(nn.Linear(3, 2)).state_dict()
    opened(path, {"D": discriminator, "G": nn.Sequential(nn.Linear(9, 2))})
    (table, *_) = summary(str(path), columns=["path", "type", "parameters"]).tables
    assert table.rows == (
        ("", None, 28),
        ("D", None, 8),
        ("D.0", None, 8),
        ("G", "Sequential", 20),
        ("G.0", "Linear", 20),
    )


def test_two_nets_of_the_same_names_are_drawn_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    opened(path, {"G": weights(), "D": {"0.weight": torch.ones(9, 2)}})
    (table, *_) = summary(str(path), columns=["path", "parameters"]).tables
    assert table.rows == (("", 30), ("G", 12), ("G.0", 8), ("G.1", 4), ("D", 18), ("D.0", 18))
    (table, *_) = summary(str(path), tensors=True).tables
    assert [row[:2] for row in table.rows] == [
        ("G", (0, "0.weight")),
        ("G", (0, "0.bias")),
        ("G", (0, "1.weight")),
        ("G", (0, "1.bias")),
        ("G", (0, "1.running_mean")),
        ("G", (0, "1.running_var")),
        ("G", (0, "1.num_batches_tracked")),
        ("D", (0, "0.weight")),
    ]


def test_the_tree_is_that_of_the_model_and_not_of_what_lies_beside(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    opened(path, {"best_model": nn.Linear(5, 5), "model": nn.Linear(3, 2)})
    modules = shown(path)["modules"]
    assert [(each["path"], each["parameters"]) for each in modules] == [("", 8)]
    beside = shown(path, "best_model")["modules"]
    assert [(each["path"], each["parameters"]) for each in beside] == [("", 30)]


def test_the_names_of_a_nested_model(tmp_path: Path) -> None:
    make, _ = CASES["Megatron"]
    assert [tensor.name for tensor in opened(tmp_path / "x.pth", make()).model_tensors] == [
        "language_model.embedding.word_embeddings.weight",
        "language_model.encoder.layers.0.weight",
    ]


def test_tensors_by_number_are_no_sections(tmp_path: Path) -> None:
    found = opened(tmp_path / "x.pth", {0: torch.ones(2), 1: torch.ones(3)})
    assert (found.kind, found.sections) == ("tensors", ())
    assert [(tensor.name, tensor.role) for tensor in found.tensors] == [
        ("0", "tensor"),
        ("1", "tensor"),
    ]


class AttributeDict(dict[str, object]):
    """Named and pickled as Lightning's own, a dict by inheritance."""


def test_the_hyper_parameters_of_lightning_are_values(tmp_path: Path) -> None:
    hyper = AttributeDict(lr=0.1, hidden=[1, 2], model={"dim": 3}, act=nn.ReLU, path=Path("a/b"))
    found = opened(
        tmp_path / "x.ckpt",
        {
            "state_dict": weights(),
            "hparams_name": "kwargs",
            "hyper_parameters": hyper,
            "pytorch-lightning_version": "2.5.0",
        },
    )
    assert roles(found) == {"state_dict": "model"}
    assert found.values == {
        "hparams_name": "kwargs",
        "hyper_parameters.lr": 0.1,
        "hyper_parameters.hidden": [1, 2],
        "hyper_parameters.model.dim": 3,
        "hyper_parameters.act": "torch.nn.modules.activation.ReLU",
        "hyper_parameters.path": "a/b",
        "pytorch-lightning_version": "2.5.0",
    }


def test_a_configuration_of_omegaconf_is_shown() -> None:
    """OmegaConf 2.3 keeps what a node holds in an attribute."""

    def node(kind: str, **state: object) -> Call:
        made = Call(Global(*kind.rsplit(".", 1)), (), "new")
        made.state = {"_metadata": None, "_parent": None, **state}
        return made

    number = node("omegaconf.nodes.AnyNode", _val=0.1)
    items = node("omegaconf.listconfig.ListConfig", _content=[number, number])
    config = node("omegaconf.dictconfig.DictConfig", _content={"lr": number, "betas": items})
    assert display(config) == {"lr": 0.1, "betas": [0.1, 0.1]}
