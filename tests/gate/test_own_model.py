"""Models of one's own: built, scripted, exported; measured alike, refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from robustbench_tin.benchmarks.gate.own import Asked, OwnSource, measure
from robustbench_tin.cli import app
from robustbench_tin.errors import RobustTinError
from robustbench_tin.models import own as own_module
from robustbench_tin.models.own import load_own_model

SOURCE = """
import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 8, stride=8),
        nn.Flatten(), nn.Linear(32, 10),
    )


def needs(argument):
    return net()


def nothing():
    return 3


broken = "text"
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def built(source: Path) -> nn.Module:
    return load_own_model(f"{source}:net").module


def export(model: nn.Module, path: Path) -> None:
    torch.onnx.export(
        model,
        (torch.rand(2, 3, 64, 64),),
        path,
        dynamo=False,
        input_names=["images"],
        dynamic_axes={"images": {0: "n"}},
    )


def accuracies(spec: str, **options) -> dict[str, float | None]:
    subject = OwnSource(
        model=spec, eval_images=40, attacks=options.pop("attacks", "fgsm"), eps="0.02", trust=False, **options
    ).measure()
    return {figure.key.label: figure.record.top1 for _, figure in subject.figures}


def test_a_module_a_script_and_an_onnx_file_of_one_network_have_the_same_figures(
    source: Path, built: nn.Module, tmp_path: Path
) -> None:
    script, onnx = tmp_path / "net.pt", tmp_path / "net.onnx"
    torch.jit.trace(built, torch.rand(2, 3, 64, 64)).save(script)
    export(built, onnx)
    first = accuracies(f"{source}:net")
    assert set(first) == {"clean", "fgsm@0.02"}
    assert accuracies(str(script)) == first
    assert accuracies(str(onnx)) == first
    assert load_own_model(str(script)).weights == load_own_model(f"{source}:net").weights


def test_an_onnx_file_that_torch_cannot_hold_is_a_black_box_and_says_so(
    built: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = tmp_path / "net.onnx"
    export(built, onnx)
    import onnx2torch

    def unknown(graph: object) -> nn.Module:
        raise NotImplementedError("Converter is not implemented (Einsum)")

    monkeypatch.setattr(onnx2torch, "convert", unknown)
    own = load_own_model(str(onnx))
    assert own.notes[0].startswith("no gradients: its conversion to torch failed (NotImplementedError")
    images = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(own.module(images), built(images), rtol=1e-4, atol=1e-5)
    assert accuracies(str(onnx), attacks="square:queries=5")["square:queries=5@0.02"] is not None
    with pytest.raises(RobustTinError, match="gives no gradients, which fgsm needs"):
        accuracies(str(onnx))

    # A conversion that answers otherwise is worse than none.
    monkeypatch.setattr(onnx2torch, "convert", lambda graph: nn.Sequential(built, nn.Softmax(1)))
    assert load_own_model(str(onnx)).gradients
    assert not load_own_model(str(onnx)).confirmed(images).gradients


def test_weights_are_put_into_what_is_built(source: Path, built: nn.Module, tmp_path: Path) -> None:
    state = {name: torch.zeros_like(value) for name, value in built.state_dict().items()}
    save_file(state, tmp_path / "zeros.safetensors")
    own = load_own_model(f"{source}:net", tmp_path / "zeros.safetensors")
    assert not any(value.any() for value in own.module.state_dict().values())
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(RobustTinError, match="are not this model's"):
        load_own_model(f"{source}:net", tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mine", "expected package.module:factory"),
        ("no_such_package:net", "cannot be imported"),
        ("{}:missing", "has no function 'missing'"),
        ("{}:broken", "has no function 'broken'"),
        ("{}:needs", "expected a function without arguments"),
        ("{}:nothing", "gave a int; expected a torch module"),
        ("absent.py:net", "is no file"),
        ("absent.onnx", "is no file"),
        ("{}.pt", "is no TorchScript file"),
        ("{}.onnx", "is no ONNX file"),
    ],
)
def test_what_is_no_model_is_one_line(source: Path, spec: str, message: str) -> None:
    for suffix in (".pt", ".onnx"):
        Path(f"{source}{suffix}").write_bytes(b"not a model")
    with pytest.raises(RobustTinError, match=message) as caught:
        load_own_model(spec.format(source))
    assert "\n" not in str(caught.value)


def test_without_onnx_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").touch()
    monkeypatch.setattr(own_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RobustTinError, match=r"pip install 'robustbench-tin\[onnx\]'"):
        load_own_model(str(tmp_path / "net.onnx"))


def test_the_command_checks_it_and_its_update_is_a_command(source: Path, tmp_path: Path) -> None:
    runner, file = CliRunner(), tmp_path / "baseline.json"
    words = [
        "--model",
        f"{source}:net",
        "--eval-images",
        "40",
        "--attacks",
        "fgsm",
        "--eps",
        "0.02",
        "--no-trust",
    ]
    made = runner.invoke(app, ["baseline", *words, "--out", str(file)])
    assert made.exit_code == 0, made.output
    checked = runner.invoke(app, ["check", *words, "--baseline", str(file), "--max-drop", "0.2"])
    assert checked.exit_code == 0, checked.output
    assert "Robustness check passed: 2 measures: 2 not worse." in checked.output
    command = OwnSource(
        model=f"{source}:net", eval_images=40, attacks="fgsm", eps="0.02", trust=False
    ).command
    again = runner.invoke(app, ["baseline", *command.split(), "--out", str(tmp_path / "again.json")])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()


def test_it_is_measured_in_memory_too(built: nn.Module) -> None:
    own = own_module.OwnModel(built, "net", "w")
    subject = measure(own, torch.rand(8, 3, 64, 64), torch.zeros(8, dtype=torch.long), Asked("fgsm", "0.02"))
    assert [figure.key.label for _, figure in subject.figures] == ["clean", "fgsm@0.02"]
