"""Models that take or return something else: their values and gradients are those of the plain model."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import rgb_to_grayscale

from robustbench_tin import evaluate, perturb
from robustbench_tin.benchmarks.evaluate_run import evaluate_run
from robustbench_tin.benchmarks.gate.user_model import UserModelSource
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader
from robustbench_tin.data import open_dataset, subset
from robustbench_tin.errors import InvalidSettingError, RobustTinError, RunError
from robustbench_tin.models import backbones, build_classifier
from robustbench_tin.models.adapters import Adaptation, adapted, other_channels, parse_range
from robustbench_tin.models.model_config import ModelConfig
from robustbench_tin.models.ready_model import ready_model

CLASSES, SIDE, COUNT = 10, 8, 11


def net(channels: int = 3) -> nn.Sequential:
    """A small smooth network, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(channels, 4, 3, padding=1), nn.Tanh(), nn.Flatten()),
            nn.Linear(4 * SIDE * SIDE, CLASSES),
        ).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels(images: Tensor) -> Tensor:
    with torch.no_grad():
        return net()(images).argmax(dim=1)


class Around(nn.Module):
    """A network whose answer is put into another form."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any], network: nn.Module | None = None) -> None:
        super().__init__()
        self.network = net() if network is None else network
        self.form = form

    def forward(self, images: Tensor) -> Any:
        return self.form(self.network(images), images.flatten(1))


class ModelOutput(OrderedDict):
    """As that of transformers: items are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Heads:
    """An answer with attributes only."""

    def __init__(self, logits: Tensor, features: Tensor) -> None:
        self.logits, self.features = logits, features


class EightOnly(nn.Module):
    """A network that takes batches of eight images, as programs traced so do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = net()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.reshape(8, 3, SIDE, SIDE))


def same_as_plain(model: nn.Module, plain: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """Hold logits and the gradient of a loss against those of a plain model."""
    found = []
    for each in (model, plain):
        variable = images.clone().requires_grad_()
        logits = each(variable)
        loss = (logits.softmax(dim=1) ** 2).sum()
        found.append((logits.detach(), torch.autograd.grad(loss, variable)[0]))
    (logits, gradient), (expected, true_gradient) = found
    assert float(true_gradient.abs().max()) > 1e-4
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, true_gradient, rtol=1e-4, atol=1e-7)


Named = namedtuple("Named", ["features", "logits"])
FORMS: dict[str, tuple[Callable, str | int]] = {
    "dict": (lambda logits, features: {"features": features, "logits": logits}, "logits"),
    "dict by number": (lambda logits, features: {"features": features, "logits": logits}, "1"),
    "ModelOutput": (lambda logits, features: ModelOutput(loss=None, logits=logits), "logits"),
    "tuple": (lambda logits, features: (logits, features), 0),
    "tuple as a word": (lambda logits, features: (logits, features), "0"),
    "last of a list": (lambda logits, features: [features, logits], "-1"),
    "namedtuple": (lambda logits, features: Named(features, logits), "logits"),
    "attributes": (lambda logits, features: Heads(logits, features), "logits"),
}


@pytest.mark.parametrize(("form", "output"), FORMS.values(), ids=FORMS.keys())
def test_the_named_output_is_the_plain_model(images: Tensor, form: Callable, output: str | int) -> None:
    model = adapted(Around(form), None, None, Adaptation(output=output))
    same_as_plain(model, net(), images)


@pytest.mark.parametrize(
    ("form", "line"),
    [
        (
            FORMS["dict"][0],
            r"the parts features \(a tensor \(1, 192\)\), logits \(.*: select .* --output logits \(",
        ),
        (
            FORMS["ModelOutput"][0],
            r"the parts loss \(a NoneType\), logits .* --output logits \(in Python: output=",
        ),
        (FORMS["tuple"][0], r"the parts 0 \(a tensor \(1, 10\)\), 1 .* --output 0 \(in Python: output=0\)"),
        (FORMS["attributes"][0], r"--output logits"),
    ],
)
def test_an_answer_with_parts_names_the_option(
    images: Tensor, labels: Tensor, form: Callable, line: str
) -> None:
    with pytest.raises(InvalidSettingError, match=line) as caught:
        evaluate(Around(form), images, labels, "fgsm", 0.01)
    assert "\n" not in str(caught.value)


def test_an_output_that_is_not_there_names_those_that_are(images: Tensor, labels: Tensor) -> None:
    with pytest.raises(InvalidSettingError, match=r"output got 'lgits', .* features .*, logits .*0 to 1"):
        evaluate(Around(FORMS["dict"][0]), images, labels, "fgsm", 0.01, output="lgits")
    with pytest.raises(InvalidSettingError, match=r"returns a tensor \(1, 10\); leave --output out"):
        evaluate(net(), images, labels, "fgsm", 0.01, output=0)


def test_a_fixed_batch_is_the_plain_model(images: Tensor) -> None:
    """Eleven images: a whole batch, and one of three that is filled up."""
    same_as_plain(adapted(EightOnly(), None, None, Adaptation(batch_size=8, pad=True)), net(), images)


def test_no_gradient_comes_from_what_was_filled_in(images: Tensor) -> None:
    """It is copies of the first image of the batch, whose gradient must be that of itself alone."""
    model = adapted(EightOnly(), None, None, Adaptation(batch_size=8, pad=True))
    same_as_plain(model, net(), images[:1])


def test_a_batch_size_alone_cuts_batches() -> None:
    sizes: list[int] = []

    class Counts(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return images.flatten(1)

    adapted(Counts(), None, None, Adaptation(batch_size=4))(torch.rand(11, 3, 2, 2))
    assert sizes == [4, 4, 3]


def test_batches_and_outputs_go_together(images: Tensor) -> None:
    model = Around(FORMS["tuple"][0], EightOnly())
    same_as_plain(adapted(model, None, None, Adaptation(output=0, batch_size=8, pad=True)), net(), images)


def test_a_fixed_batch_names_the_option(images: Tensor, labels: Tensor) -> None:
    with pytest.raises(
        InvalidSettingError, match=r"takes batches of 8 images: give --batch-size 8 --pad"
    ) as at:
        evaluate(EightOnly(), images, labels, "fgsm", 0.01)
    assert "\n" not in str(at.value)


def test_a_scripted_program_of_a_fixed_batch_is_measured(images: Tensor, labels: Tensor) -> None:
    traced = torch.jit.trace(EightOnly(), torch.rand(8, 3, SIDE, SIDE))
    options: dict[str, Any] = {"attacks": "fgsm", "eps": 0.02, "batch_size": 8}
    found = evaluate(traced, images, labels, pad=True, search="exact", **options).records
    expected = evaluate(net(), images, labels, search="exact", **options).records
    assert found.top1.tolist() == expected.top1.tolist()
    assert 0 < found.top1[1] < found.top1[0] == 1


def test_luminance_is_torchvisions(images: Tensor) -> None:
    torch.testing.assert_close(other_channels(images), rgb_to_grayscale(images), rtol=1e-3, atol=2e-4)
    white = torch.ones(1, 3, 2, 2)
    torch.testing.assert_close(other_channels(white), torch.ones(1, 1, 2, 2))


def test_a_model_of_one_channel_is_the_plain_one_on_luminance(images: Tensor) -> None:
    gray = net(1)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    same_as_plain(
        adapted(gray, None, None, Adaptation(grayscale=True)),
        lambda given: gray((given * weights).sum(1, keepdim=True)),
        images,
    )


def test_gray_images_are_repeated_for_a_model_of_three(images: Tensor) -> None:
    same_as_plain(
        adapted(net(), None, None, Adaptation(grayscale=True)),
        lambda given: net()(torch.cat([given, given, given], dim=1)),
        images[:, :1],
    )


def test_normalisation_of_one_channel_comes_after_the_luminance(images: Tensor) -> None:
    gray = net(1)
    same_as_plain(
        adapted(gray, [0.4], [0.2], Adaptation(grayscale=True)),
        lambda given: gray((other_channels(given) - 0.4) / 0.2),
        images,
    )
    wrong = adapted(gray, [0.4] * 3, [0.2] * 3, Adaptation(grayscale=True))
    with pytest.raises(InvalidSettingError, match="3"):
        wrong(images)


@pytest.mark.parametrize(
    ("channels", "line"), [(1, "of 1 channel, and these have 3"), (3, "of 3 channels, and")]
)
def test_other_channels_name_the_option(images: Tensor, labels: Tensor, channels: int, line: str) -> None:
    shown = images if channels == 1 else images[:, :1]
    with pytest.raises(InvalidSettingError, match=rf"{line}.*give --grayscale \(in Python: grayscale=True\)"):
        evaluate(net(channels), shown, labels, "fgsm", 0.01)
    assert len(evaluate(net(channels), shown, labels, "fgsm", 0.01, grayscale=True).records) == 2


@pytest.mark.parametrize("given", [(-1, 1), (0, 255), (-0.5, 2.0)])
def test_a_range_is_the_plain_model_on_scaled_images(images: Tensor, given: tuple[float, float]) -> None:
    low, high = given
    same_as_plain(
        adapted(net(), None, None, Adaptation(value_range=given)),
        lambda pixels: net()(low + (high - low) * pixels),
        images,
    )


def test_eps_counts_in_pixels_whatever_the_range(images: Tensor, labels: Tensor) -> None:
    moved = perturb(net(), images, labels, "fgsm", 0.02, value_range=(-1, 1))
    assert float((moved - images).abs().max()) == pytest.approx(0.02, abs=1e-6)
    by_mean = perturb(net(), images, labels, "fgsm", 0.02, mean=0.5, std=0.5)
    torch.testing.assert_close(moved, by_mean)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"pad": True}, "got pad without batch-size; give both"),
        ({"pad": True, "batch_size": 0}, "batch-size got 0|batch_size got 0"),
        ({"value_range": (1, -1)}, "range got 1,-1; expected the values of black and white, the lower first"),
        ({"value_range": (0, 1, 2)}, "range got 0,1,2"),
        ({"value_range": (0, float("nan"))}, "range got 0,nan"),
        ({"value_range": (-1, 1), "mean": 0.5, "std": 0.5}, "got both range and a normalisation"),
    ],
)
def test_settings_that_do_not_fit(images: Tensor, labels: Tensor, options: dict, line: str) -> None:
    for call in (evaluate, perturb):
        with pytest.raises(RobustTinError, match=line):
            call(net(), images, labels, "fgsm", 0.01, **options)


@pytest.mark.parametrize("text", ["1", "a,b", "0,1,2", ""])
def test_a_range_that_is_none(text: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"expected the values of black and white"):
        parse_range(text)


SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, channels=3, fixed=False, heads=False, sign=False):
        super().__init__()
        torch.manual_seed(0)
        self.channels, self.fixed, self.heads, self.sign = channels, fixed, heads, sign
        self.layers = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(channels * 64, 10))

    def forward(self, images):
        if self.sign:
            images = (images + 1) / 2
        if self.fixed:
            images = images.reshape(8, 3, 64, 64)
        logits = self.layers(images)
        return (images.flatten(1), logits) if self.heads else logits


def build(**settings):
    return Net(**settings)
"""


@pytest.mark.parametrize(
    ("arguments", "options", "line"),
    [
        ("heads=true", {"output": "1"}, "--output 0"),
        ("fixed=true", {"batch_size": 8, "pad": True}, "--batch-size 8 --pad"),
        ("channels=1", {"grayscale": True}, "--grayscale"),
        ("sign=true", {"value_range": "-1,1"}, None),
    ],
)
def test_the_gates_options_do_the_same(
    tmp_path: Path, arguments: str, options: dict, line: str | None
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    given: dict[str, Any] = {"model": f"{path}:build", "eval_images": 20, "attacks": "fgsm", "trust": False}
    adapted_one = UserModelSource(**given, model_args=(arguments,), **options)
    found = adapted_one.measure()
    assert len(found.models[0].figures) == 3
    for name in options:
        assert f"--{name.replace('_', '-').replace('value-range', 'range')}" in adapted_one.command
    if arguments != "channels=1":
        plain = UserModelSource(**given).measure()
        assert [figure.record.top1 for figure in found.models[0].figures] == [
            figure.record.top1 for figure in plain.models[0].figures
        ]
    if line is not None:
        with pytest.raises(InvalidSettingError, match=line):
            UserModelSource(**given, model_args=(arguments,)).measure()


def exported(model: nn.Module, path: Path, batch: int, names: list[str]) -> Path:
    """An ONNX file that takes batches of one size."""
    torch.onnx.export(
        *(model, (torch.rand(batch, 3, SIDE, SIDE),), path),
        dynamo=False,
        input_names=["images"],
        output_names=names,
        opset_version=13,
    )
    return path


class Both(nn.Module):
    """Features and logits, from batches of eight only."""

    def __init__(self) -> None:
        super().__init__()
        self.network = EightOnly()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.flatten(1), self.network(images)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_onnx_file_of_a_fixed_batch_and_two_outputs(tmp_path: Path, images: Tensor) -> None:
    pytest.importorskip("onnx2torch")
    path = exported(Both().eval(), tmp_path / "both.onnx", 8, ["features", "logits"])
    config: dict[str, Any] = {"output": "logits"}
    own, _ = ready_model(str(path), None, ModelConfig(**config), images, CLASSES, "cpu")
    assert not own.gradients
    assert "give --batch-size 8 --pad" in own.notes[0]
    torch.testing.assert_close(own.module(images), net()(images).detach(), rtol=1e-4, atol=1e-5)
    own, _ = ready_model(
        str(path), None, ModelConfig(**config, batch_size=8, pad=True), images, CLASSES, "cpu"
    )
    assert own.gradients
    same_as_plain(own.module, net(), images)
    with pytest.raises(InvalidSettingError, match=r"the parts features .*, logits .* --output logits"):
        ready_model(str(path), None, ModelConfig(), images, CLASSES, "cpu")


def test_a_run_loads_an_adapted_model_again_as_it_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    run = evaluate_run(
        models=[f"{path}:build"],
        model_args=["channels=1", "heads=true", "sign=true"],
        **{"output": "1", "grayscale": True, "value_range": "-1,1"},
        **{"eval_images": 20, "attacks": "fgsm", "eps": "0.02", "trust": False, "device": "cpu"},
        out=tmp_path / "run",
    )
    (cell,) = run.plan.cells()
    clean = run.outcomes(cell, "clean", 0.0)
    assert run.records.status.tolist() == ["ok", "ok"]
    loaded = CellLoader(run, 64, "cpu").load(cell).model
    part = subset(open_dataset("demo"), eval_images=20).val
    with torch.no_grad():
        right = loaded(torch.from_numpy(part.images.copy()).float() / 255).argmax(1).numpy() == part.labels
    assert right.tolist() == clean.top1.tolist()
    with pytest.raises(RunError, match=r"another plan.*output of model"):
        evaluate_run(
            models=[f"{path}:build"],
            model_args=["channels=1", "heads=true", "sign=true"],
            **{"output": "-1", "grayscale": True, "value_range": "-1,1"},
            **{"eval_images": 20, "attacks": "fgsm", "eps": "0.02", "trust": False, "device": "cpu"},
            out=tmp_path / "run",
        )


def test_a_backbone_takes_none_of_these(images: Tensor) -> None:
    with pytest.raises(InvalidSettingError, match=r"is a backbone, which maps pixels in .* leave --output"):
        Adaptation(grayscale=True).inside(
            build_classifier(backbones.get("timm:test_resnet"), 10, image_size=32, seed=0)
        )
