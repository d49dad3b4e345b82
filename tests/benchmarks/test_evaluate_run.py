"""``robust-tin evaluate``: trained models of every kind, their run directory, and mistakes in one line."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from robustbench_tin import bench, evaluate
from robustbench_tin.benchmarks.evaluate_run import evaluate_run
from robustbench_tin.benchmarks.report.command import repeat_command
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.cli.app import app
from robustbench_tin.data import open_dataset
from robustbench_tin.errors import RobustTinError
from robustbench_tin.progress import LinesReporter, Reporter

SOURCE = """
import timm
import torch
from torch import nn


def net(classes=3):
    return timm.create_model("test_resnet", num_classes=classes)


def detached():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3)).eval()
    return lambda images: network(images).detach()


def five(scale=1.0):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))


def wide():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 8, stride=8), nn.Linear(256, 3)

    def forward(self, images):
        activations = self.first(images)
        return self.last(activations.view(len(images), 256))


def viewing():
    torch.manual_seed(0)
    return Viewing()


def failing():
    return nn.Linear(2, 3)
"""


@pytest.fixture(scope="module")
def place(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a network's weights and functions that build networks."""
    place = tmp_path_factory.mktemp("models")
    (place / "mine.py").write_text(SOURCE)
    (cell,) = run.plan.cells()
    (place / "net.safetensors").write_bytes(run.weights_file(cell).read_bytes())
    return place


@pytest.fixture(scope="module")
def colours(
    small_options: Callable[[Path], dict], place: Path, tmp_path_factory: pytest.TempPathFactory
) -> nn.Module:
    """A network that tells colours, its weights in ``colours.safetensors``; it takes normalised images."""
    asked = {**small_options(tmp_path_factory.mktemp("colours") / "run"), "attacks": "fgsm", "eps": "0"}
    run = bench(**asked)
    (cell,) = run.plan.cells()
    (place / "colours.safetensors").write_bytes(run.weights_file(cell).read_bytes())
    return trained(place / "colours.safetensors")


def export(network: nn.Module, place: Path) -> None:
    """The network as TorchScript, exported program and ONNX."""
    images = torch.rand(2, 3, 16, 16)
    torch.jit.trace(network, images).save(place / "script.pt")
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    torch.export.save(program, place / "exported.pt2")
    torch.onnx.export(
        network,
        (images,),
        place / "onnx.onnx",
        dynamo=False,
        opset_version=13,
        input_names=["images"],
        dynamic_axes={"images": {0: "n"}},
    )


def trained(weights: Path) -> nn.Module:
    network = timm.create_model("test_resnet", num_classes=3)
    network.load_state_dict(load_file(weights))
    return network.eval()


@pytest.fixture
def options(place: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Options of an evaluation of one model that takes a second."""
    monkeypatch.chdir(place)
    return {
        "models": ["timm:test_resnet"],
        "weights": ["net.safetensors"],
        "data": str(drawn),
        "attacks": "fgsm",
        "eps": "0.02",
        "device": "cpu",
        "trust": False,
        "deterministic": True,
        "out": tmp_path / "run",
    }


def accuracies(run: Run) -> dict[str, list[float]]:
    return {str(name): frame["top1"].tolist() for name, frame in run.records.groupby("model", sort=False)}


def plain_accuracy(network: nn.Module, data: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> float:
    """Clean accuracy by a loop that shares nothing with the package but its reader of images."""
    val = open_dataset(str(data)).val
    right = 0
    with torch.no_grad():
        for image, label in zip(val.images, val.labels, strict=True):
            pixels = torch.from_numpy(image.copy()).float() / 255
            normalised = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
            right += int(network(normalised[None]).argmax()) == int(label)
    return right / len(val.labels)


@pytest.mark.filterwarnings("ignore")
def test_one_network_has_the_same_figures_in_every_form(
    options: dict, place: Path, colours: nn.Module, small_folder: Path
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnx2torch")
    export(colours, place)
    settings = colours.pretrained_cfg
    asked = {
        "models": ["timm:test_resnet", "mine.py:net", "script.pt", "exported.pt2", "onnx.onnx"],
        "weights": ["colours.safetensors"] * 2,
        "data": str(small_folder),
        "eps": "0.1",
        **{name: ",".join(map(str, settings[name])) for name in ("mean", "std")},
    }
    run = evaluate_run(**{**options, **asked})
    found = accuracies(run)
    assert list(found) == ["timm:test_resnet", "net", "script", "exported", "onnx"]
    (first, *others) = found.values()
    assert others == [first] * 4
    assert first[0] == plain_accuracy(colours, small_folder, settings["mean"], settings["std"])
    assert 0.5 < first[0] > first[1]
    assert len({model.weights for model in run.plan.given[:4]}) == 1


def test_a_networks_own_settings_normalise_it(options: dict) -> None:
    run = evaluate_run(**{**options, "models": ["timm:test_resnet"]})
    function = {"models": ["mine.py:net"], "model_args": ["classes=3"], "normalize": "auto"}
    other = evaluate_run(**{**options, **function, "out": Path(options["out"]).with_name("other")})
    assert accuracies(run)["timm:test_resnet"] == accuracies(other)["net"]
    assert other.plan.given[0].mean == tuple(timm.create_model("test_resnet").pretrained_cfg["mean"])


def test_the_commands_on_runs_take_the_run(options: dict, tmp_path: Path) -> None:
    forms = {"models": ["timm:test_resnet", "mine.py:net"], "weights": ["net.safetensors"] * 2}
    run = evaluate_run(**{**options, **forms, "normalize": "half", "keep_adversarial": 2})
    assert len(list(run.path.glob("cells/*/measures/fgsm@0.02.safetensors"))) == 2
    here = str(run.path)
    baseline = str(tmp_path / "baseline.json")
    cell = f"{here}/net/none/0"
    for words, told in (
        (["show", here], "timm:test_resnet"),
        (["runs", str(run.path.parent)], "done"),
        (["baseline", here, "--out", baseline], "4 measurements"),
        (["check", here, "--baseline", baseline, "--allow-untrained"], "4 not worse"),
        (["predict", cell, "--split", "val", "--out", str(tmp_path / "p.csv")], "12"),
        (["fool", "--model", cell, "--split", "val", "--out", str(tmp_path / "fooled")], "12"),
        (["transfer", here, "--attack", "fgsm"], "net + none"),
        (["gallery", here, "--count", "1"], "2 images, chosen by the rule random"),
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (words, result.exception, result.output)
        assert told in result.output, (words, result.output)
    settings = json.loads(Path(baseline).read_text())["settings"]
    assert settings["given"].startswith("timm:test_resnet mean 0.5,")
    program, *words = shlex.split(repeat_command(run).replace("FILE", "net.safetensors"))
    assert program == "robust-tin"
    again = CliRunner().invoke(app, [*words, "--out", here])
    assert "is complete already: nothing to do" in again.output, (words, again.exception, again.output)
    lines = (tmp_path / "p.csv").read_text().splitlines()
    right = sum(line.split(",")[1] == line.split(",")[-1] for line in lines[1:])
    assert right / 12 == accuracies(run)["net"][0]


class Stops(Reporter):
    """Ends the work after the first model, as a kill does."""

    def finished(self, line: str) -> None:
        if "top-1" in line:
            raise KeyboardInterrupt


def test_files_go_to_the_backbones_that_need_them(options: dict) -> None:
    run = evaluate_run(**{**options, "models": ["mine.py:viewing", "timm:test_resnet"], "eps": "0"})
    assert [model.weights_file.partition(" ")[0] for model in run.plan.given] == ["", "net.safetensors"]


def test_a_function_that_forgets_its_weights_is_found(options: dict) -> None:
    with pytest.raises(
        RobustTinError, match="if its function creates new weights at each call, give --weights"
    ):
        evaluate_run(**{**options, "models": ["mine.py:wide"], "weights": []})


def test_a_stopped_evaluation_continues(options: dict) -> None:
    both = {**options, "models": ["timm:test_resnet", "mine.py:net"], "weights": ["net.safetensors"] * 2}
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(**both, reporter=Stops())
    stopped = Run.load(options["out"])
    assert list(accuracies(stopped)) == ["timm:test_resnet"]
    before = {file: file.stat().st_mtime_ns for file in stopped.path.glob("cells/*/measures/*")}
    whole = evaluate_run(**both)
    assert whole.complete
    assert all(file.stat().st_mtime_ns == when for file, when in before.items())
    fresh = evaluate_run(**{**both, "out": Path(options["out"]).with_name("fresh")})
    assert accuracies(whole) == accuracies(fresh)


def test_changed_weights_are_refused_with_the_difference(options: dict, place: Path) -> None:
    mine = place / "changing.safetensors"
    mine.write_bytes((place / "net.safetensors").read_bytes())
    asked = {**options, "models": ["mine.py:net"], "weights": [mine]}
    run = evaluate_run(**asked)
    state = load_file(mine)
    save_file({**state, "fc.bias": state["fc.bias"] + 1}, mine)
    with pytest.raises(
        RobustTinError, match=r"another plan \(weights_file of model 'net': .* weights of model"
    ):
        evaluate_run(**asked)
    shown = CliRunner().invoke(app, ["predict", str(run.path), "--out", str(place / "p.csv")])
    assert f"model 'net' has changed since run '{run.path}' measured it" in str(shown.exception)
    mine.unlink()
    for words in (["predict", str(run.path), "--out", str(place / "p.csv")],):
        assert "cannot be loaded again: weights" in str(CliRunner().invoke(app, words).exception)
    assert CliRunner().invoke(app, ["show", str(run.path)]).exit_code == 0


def test_a_model_without_gradients_has_the_records_of_evaluate(
    options: dict, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = "square:queries=5"
    monkeypatch.setattr("robustbench_tin.benchmarks.measurement.black_box_stand_in.STAND_IN", short)
    monkeypatch.setattr("robustbench_tin.benchmarks.evaluate_run.STAND_IN", short)
    asked = {**options, "models": ["mine.py:detached"], "weights": [], "attacks": "fgsm,noise"}
    run = evaluate_run(**asked)
    val = open_dataset(str(drawn)).val
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3)).eval()
    there = evaluate(
        lambda images: network(images).detach(),
        val.images,
        val.labels,
        ["fgsm", "noise"],
        0.02,
        search="fixed",
    ).records
    columns = ["attack", "eps", "n", "top1", "top5", "status", "remarks", "mode", "classes", "epochs"]
    assert run.records[columns].to_json() == there[columns].to_json()
    assert run.complete
    assert [record.attack for record in run.iter_records()] == ["clean", "fgsm", "noise", short]


def test_a_network_may_view_its_activations(options: dict) -> None:
    run = evaluate_run(**{**options, "models": ["mine.py:viewing"], "weights": [], "attacks": "fgsm,fast"})
    assert run.complete


def test_nothing_is_measured_twice(options: dict) -> None:
    evaluate_run(**options)
    listens = LinesReporter()
    evaluate_run(**options, reporter=listens)
    assert any("is complete already" in line for line in listens.lines)


def test_the_cost_of_the_reference_is_told(options: dict) -> None:
    listens = LinesReporter()
    evaluate_run(**options, reporter=listens)
    assert any(line.startswith("The reference, --attacks autoattack, would take") for line in listens.lines)


def test_outputs_are_put_into_the_order_of_the_data(options: dict, place: Path) -> None:
    plain = evaluate_run(**options)
    state = load_file(place / "net.safetensors")
    # The classes n03, n01, n02 sorted by their ids, and with two that the data does not have.
    turned = {key: state[key][[1, 2, 0]] for key in ("fc.weight", "fc.bias")}
    save_file({**state, **turned}, place / "sorted.safetensors")
    extra = {
        key: torch.cat([state[key][[1]], state[key] - 9, state[key][[2, 0]]])[[0, 1, 4, 5]] for key in turned
    }
    save_file({**state, **extra}, place / "more.safetensors")
    (place / "ids.txt").write_text("n01\nn98\nn02\nn03\n")
    for order, weights in (("sorted", "sorted"), ("ids.txt", "more")):
        out = Path(options["out"]).with_name(weights)
        changed = {"weights": [f"{weights}.safetensors"], "class_order": order, "out": out}
        run = evaluate_run(**{**options, **changed})
        assert accuracies(run) == accuracies(plain), order
    assert run.plan.given[0].order == (3, 0, 2, 1)
    result = CliRunner().invoke(app, ["predict", str(run.path), "--out", str(place / "more.csv")])
    assert result.exit_code == 0, result.exception
    assert "output 1" in (place / "more.csv").read_text()


@pytest.fixture
def refused(options: dict) -> Callable[..., str]:
    """The one line that a changed option ends in."""

    def why(**changes: object) -> str:
        with pytest.raises(RobustTinError) as caught:
            evaluate_run(**{**options, "weights": [], **changes})
        assert "\n" not in str(caught.value)
        assert not Path(options["out"]).exists()
        return str(caught.value)

    return why


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"models": []}, "nothing to evaluate; give --model"),
        ({}, "a network without trained weights; give --weights FILE or --pretrained"),
        ({"models": ["timm:nothing"], "pretrained": True}, "unknown backbone 'timm:nothing'"),
        (
            {"models": ["mine.py:five"]},
            "model 'five' has 5 outputs, but the data set 'tiny-imagenet' has 3 classes",
        ),
        ({"models": ["mine.py:five"], "model_args": ["scale"]}, "model-arg got 'scale'; expected KEY=VALUE"),
        ({"models": ["mine.py:five"], "model_args": ["size=2"]}, "expected a function that takes size"),
        ({"models": ["mine.py:failing"]}, "model 'failing': the model fails on one image"),
        ({"models": ["mine.py:wide"], "normalize": "auto"}, "model 'wide' has no settings with mean and std"),
        ({"models": ["mine.py:wide"], "pretrained": True}, "is not a backbone, which --pretrained needs"),
        (
            {"models": ["script.pt"], "model_args": ["a=1"]},
            "is a file, not a function; leave --model-arg out",
        ),
        ({"models": ["script.pt"], "weights": ["net.safetensors"]}, "has its own weights"),
        ({"models": ["gone.pt"]}, "model 'gone.pt' is not a file"),
        (
            {"models": ["script.pt", "mine.py:wide", "mine.py:net"], "weights": ["a"]},
            "got 1 --weights file for 2 models that can load one (mine.py:wide, mine.py:net)",
        ),
        ({"models": ["mine.py:wide"], "names": ["a", "b"]}, "got 2 --names for 1 model"),
        ({"models": ["mine.py:wide"], "attacks": "no"}, "unknown attack 'no'"),
        ({"models": ["mine.py:wide"], "worst_case": True}, "worst-case got one attack"),
        ({"models": ["mine.py:wide"], "device": "mps"}, "device got 'mps'"),
        ({"models": ["mine.py:wide"], "mean": "0.5"}, "got mean without std"),
    ],
)
def test_a_mistake_is_one_line(refused: Callable[..., str], changes: dict, told: str) -> None:
    assert told in refused(**changes)


def test_what_cannot_be_downloaded_is_one_line(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for changes in ({"pretrained": True}, {"models": ["hf-hub:someone/something"]}):
        assert "HF_HUB_OFFLINE is set, and they are not in the cache" in refused(**changes)
    assert "no pretrained weights for backbone 'hf-hub:/'" in refused(models=["hf-hub:/"])


def test_a_published_network_sees_images_as_its_settings_say(
    options: dict, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"architecture": "test_resnet", "num_classes": 3}
    own = {"input_size": [3, 96, 96], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3]}
    (place / "config.json").write_text(json.dumps({**settings, "pretrained_cfg": {**own, "num_classes": 3}}))
    files = {"config.json": place / "config.json", "model.safetensors": place / "net.safetensors"}

    def download(repo_id: str, filename: str, **more: object) -> str:
        return str(files[filename])

    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    monkeypatch.setattr("robustbench_tin.models.trained_backbone.require_host", lambda *given, **named: None)
    hub = {"models": ["hf-hub:someone/net"], "weights": [], "out": Path(options["out"]).with_name("hub")}
    run = evaluate_run(**{**options, **hub})
    numbers = {"mean": "0.4,0.5,0.6", "std": "0.2,0.2,0.3"}
    same = evaluate_run(**{**options, "models": ["timm:test_resnet:size=96"], **numbers})
    assert list(accuracies(run).values()) == list(accuracies(same).values())


@pytest.mark.filterwarnings("ignore")
def test_likely_mistakes_are_told(
    options: dict, colours: nn.Module, small_folder: Path, place: Path, tmp_path: Path
) -> None:
    state = load_file(place / "colours.safetensors")
    turned = {key: state[key][[1, 2, 0]] for key in ("fc.weight", "fc.bias")}
    save_file({**state, **turned}, place / "turned.safetensors")
    many = tmp_path / "many"
    shutil.copytree(small_folder, many)
    for file in list(many.glob("train/*/*")):
        shutil.copy(file, many / "val" / file.parent.name / f"more-{file.name}")
    asked = {**options, "models": ["mine.py:net"], "data": str(many), "eps": "0"}
    for weights, normalize, told in (
        ("colours.safetensors", None, "net: ResNet's settings require images normalised"),
        ("turned.safetensors", "half", "net: clean accuracy is at chance, but the answers fit"),
        ("colours.safetensors", "half", None),
    ):
        listens = LinesReporter()
        out = Path(options["out"]).with_name(f"{weights}{normalize}")
        more = {"weights": [weights], "normalize": normalize, "out": out}
        evaluate_run(**{**asked, **more}, reporter=listens)
        remarks = [line for line in listens.lines if line.startswith("net: ")]
        assert remarks == [] if told is None else remarks[0].startswith(told)


def test_names_are_unique(options: dict, place: Path) -> None:
    (place / "copy.safetensors").write_bytes((place / "net.safetensors").read_bytes())
    asked = {**options, "eps": "0", "weights": ["net.safetensors", "copy.safetensors"]}
    run = evaluate_run(**asked)
    assert run.plan.models == ("timm:test_resnet-net", "timm:test_resnet-copy")
    named = evaluate_run(**{**asked, "names": ["old", "new"], "out": Path(options["out"]).with_name("named")})
    assert list(accuracies(named)) == ["old", "new"]
