"""Saliency: right maps and shares, on models whose attribution is known."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from robustbench_tin import bench
from robustbench_tin.benchmarks.commands.saliency import saliency
from robustbench_tin.benchmarks.evidence import attribution
from robustbench_tin.benchmarks.evidence.attribution import attribution_maps
from robustbench_tin.benchmarks.evidence.choices import Method
from robustbench_tin.benchmarks.evidence.explain import SaliencySettings, explain_run
from robustbench_tin.benchmarks.evidence.overlay import overlay
from robustbench_tin.benchmarks.evidence.saliency import SaliencyImage, box_mask, share_inside
from robustbench_tin.benchmarks.evidence.saliency_files import read_saliency, read_saliency_images
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader, LoadedCell
from robustbench_tin.cli.app import app
from robustbench_tin.data import boxes, open_dataset
from robustbench_tin.errors import RobustTinError, RunError
from robustbench_tin.progress import LinesReporter

pytest.importorskip("captum", reason="captum is not installed (the extra `saliency`)")

BOX = (5, 6, 50, 51)
"""The box in the drawn set's validation images; the first image's is degenerate."""
EPS = 0.03


class Window(nn.Module):
    """Logits that depend on the pixels of one box alone, linearly."""

    def __init__(self, box: tuple[int, int, int, int] = BOX, side: int = 64, classes: int = 3) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, 3, side, side, generator=random))
        self.register_buffer("mask", torch.from_numpy(box_mask(box, side, side)))

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", images, self.weight * self.mask)


class Convolution(nn.Module):
    """One convolution, global average pooling, one linear layer: Grad-CAM can be worked out by hand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.convolution = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.convolution(images).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def attacked(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one cell under FGSM on a set with boxes; nothing may change it."""
    out = tmp_path_factory.mktemp("saliency") / "run"
    bench(
        models="timm:test_resnet",
        data=str(drawn),
        attacks="fgsm",
        eps=[0, EPS],
        epochs=8,
        device="cpu",
        trust=False,
        out=out,
    )
    return out


@pytest.fixture
def fresh(attacked: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(attacked, tmp_path / "run"))


@pytest.fixture
def looks_at_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell is a model that looks at the pixels of the box alone."""
    model = Window()
    monkeypatch.setattr(CellLoader, "load", lambda self, cell: LoadedCell(model, model))


def test_a_model_that_looks_at_the_box_has_share_one(looks_at_the_box: None, run) -> None:
    for method in (Method.saliency, Method.integrated_gradients):
        (found,) = explain_run(run.path, SaliencySettings(method))
        clean, crop = found.result.shares
        assert (clean.kind, clean.images) == ("clean", 11)
        assert (clean.mean, clean.low, clean.high) == pytest.approx((1, 1, 1))
        assert clean.chance == pytest.approx(46 * 46 / 64**2)
        assert clean.above_chance == pytest.approx(1 - clean.chance)
        assert (crop.kind, crop.images) == ("crop", 11)


def test_saliency_is_the_size_of_the_gradient() -> None:
    model, images = Window(), torch.rand(3, 3, 64, 64)
    targets = torch.tensor([2, 0, 1])
    maps = attribution_maps(model, images, targets, Method.saliency)
    assert torch.allclose(maps, (model.weight * model.mask)[targets].abs().sum(dim=1))


def test_integrated_gradients_of_a_linear_model_are_weight_times_pixel() -> None:
    model, images = Window(), torch.rand(3, 3, 64, 64)
    targets = torch.tensor([2, 0, 1])
    maps = attribution_maps(model, images, targets, Method.integrated_gradients)
    expected = ((model.weight * model.mask)[targets] * images).abs().sum(dim=1)
    assert torch.allclose(maps, expected, atol=1e-5)


def test_grad_cam_is_the_weighted_positive_map() -> None:
    model, images = Convolution().eval(), torch.rand(2, 3, 16, 16)
    targets = torch.tensor([0, 2])
    maps = attribution_maps(model, images, targets, Method.grad_cam, model.convolution)
    # The gradient of the mean over 64 positions is the head's weight / 64 everywhere.
    weights = model.head.weight[targets] / 64
    expected = torch.einsum("nc,nchw->nhw", weights, model.convolution(images)).clamp(min=0)
    expected = nn.functional.interpolate(expected[:, None], size=16, mode="bilinear")[:, 0]
    assert torch.allclose(maps, expected, atol=1e-6)


def test_maps_of_a_trained_cell_are_those_of_autograd(attacked: Path, drawn: Path) -> None:
    """Shares from gradients that are worked out here, for clean, cropped and attacked images."""
    from robustbench_tin.benchmarks.evidence.choose import choose_gallery
    from robustbench_tin.benchmarks.runs.trained_model import find_trained

    (found,) = explain_run(attacked, SaliencySettings(Method.saliency))
    model = find_trained(attacked).load("cpu").model.eval()
    val = open_dataset(str(drawn)).val
    adversarial = {
        image.index: image.adversarial.transpose(2, 0, 1)
        for image in choose_gallery(attacked, count=12).images
    }
    compared = set()
    for each in found.result.image_shares:
        pixels, box = val.images[each.index], BOX
        if each.kind == "adversarial":
            if each.index not in adversarial:
                continue
            pixels = adversarial[each.index]
        if each.kind == "crop":
            pixels, box = boxes.crop(pixels[None], val.boxes[[each.index]])[0], (9, 9, 54, 54)
        image = (torch.from_numpy(pixels.copy())[None].float() / 255).requires_grad_()
        logits = model(image)
        (gradient,) = torch.autograd.grad(logits[0, each.predicted], image)
        assert int(logits.argmax()) == each.predicted
        assert each.share == pytest.approx(share_inside(gradient[0].abs().sum(0).numpy(), box), abs=1e-4)
        compared.add((each.kind, each.index))
    assert {kind for kind, _ in compared} == {"clean", "crop", "adversarial"}
    assert len(compared) > 25


def test_results_are_stored_and_read_without_torch(fresh: Path) -> None:
    made = saliency(fresh, pictures=2, eps=EPS)
    assert read_saliency(fresh) == list(made.shares)
    assert [share.kind for share in made.shares] == ["clean", "crop", "adversarial"]
    assert (made.shares[2].attack, made.shares[2].eps) == ("fgsm", EPS)
    images = read_saliency_images(fresh)
    assert len(images) == 3 * 2
    assert all(image.map.max() == 255 for image in images)
    page = made.pages[0].read_text()
    assert page.count("<figure") == 6
    saliency(fresh, pictures=1, method="integrated-gradients", count=3)
    assert len(read_saliency(fresh)) == 6
    saliency(fresh, pictures=1, count=3)
    assert [share.images for share in read_saliency(fresh)] == [3] * 6
    assert len(read_saliency_images(fresh)) == 2 * 3


def test_a_stored_interval_is_that_of_the_stored_shares(fresh: Path) -> None:
    from scipy import stats

    made = saliency(fresh, pictures=0)
    facts = json.loads(next((fresh / "saliency").glob("*/saliency.json")).read_text())
    for share in made.shares:
        values = [each["share"] for each in facts["image_shares"] if each["kind"] == share.kind]
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (share.mean, share.low, share.high) == pytest.approx(
            (np.mean(values), expected.low, expected.high)
        )


def test_a_set_without_boxes_gives_maps_only(small_folder: Path, tmp_path: Path) -> None:
    options = {"models": "timm:test_resnet", "data": str(small_folder), "attacks": "fgsm", "eps": "0"}
    bench(**options, epochs=1, device="cpu", trust=False, out=tmp_path / "run")
    told = LinesReporter()
    made = saliency(tmp_path / "run", reporter=told, pictures=3)
    assert made.shares == []
    assert any("has no bounding boxes: only maps" in line for line in told.lines)
    images = read_saliency_images(tmp_path / "run")
    assert [image.kind for image in images] == ["clean"] * 3
    assert all(image.box is None and math.isnan(image.share) for image in images)
    assert "no box" in made.pages[0].read_text()


def test_grad_cam_finds_its_layer_and_takes_another(fresh: Path) -> None:
    told = LinesReporter()
    saliency(fresh, method="grad-cam", count=4, reporter=told)
    assert any("grad-cam explains network.layer4, a map of 2 x 2" in line for line in told.lines)
    last = read_saliency_images(fresh)
    saliency(fresh, method="grad-cam", count=4, layer="network.layer2")
    earlier = read_saliency_images(fresh)
    assert any(not np.array_equal(*(each.map for each in pair)) for pair in zip(last, earlier, strict=True))


def test_a_map_of_zeros_has_no_share(attacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Window()
    nn.init.zeros_(model.weight)
    monkeypatch.setattr(CellLoader, "load", lambda self, cell: LoadedCell(model, model))
    (found,) = explain_run(attacked, SaliencySettings(Method.saliency))
    assert found.result.shares == ()
    assert any("11 of 11 clean images have a map that is zero" in note for note in found.notes)


def test_a_model_without_gradients_is_told(attacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Steps(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.detach().mean(dim=(2, 3)).round()

    monkeypatch.setattr(CellLoader, "load", lambda self, cell: LoadedCell(Steps(), Steps()))
    with pytest.raises(RunError, match=r"test_resnet \+ none, seed 0 cannot be explained: "):
        list(explain_run(attacked, SaliencySettings(Method.saliency)))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"method": "guess"}, "method got 'guess'; expected saliency, integrated-gradients, grad-cam"),
        ({"count": 0}, "count got 0; expected 1 or more"),
        ({"pictures": -1}, "pictures got -1; expected 0 or more"),
        ({"layer": "network.layer4"}, "layer got 'network.layer4' with saliency; expected grad-cam"),
        ({"method": "grad-cam", "layer": "network.layer9"}, "layer got 'network.layer9', .* network.layer4"),
        ({"eps": "0.01,0.03"}, "eps got 0.01, but run"),
        ({"attack": "pgd"}, "attack got 'pgd', but run"),
        ({"cells": "vgg16/*"}, "has no cell 'vgg16/.'"),
    ],
)
def test_what_does_not_fit_the_run_is_one_line(attacked: Path, options: dict, line: str) -> None:
    with pytest.raises(RobustTinError, match=line) as caught:
        saliency(attacked, **options)
    assert "\n" not in str(caught.value)


def test_without_captum_one_line_says_so(attacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["saliency", str(attacked)])
    assert result.exit_code != 0
    assert "pip install 'robustbench-tin[saliency]'" in str(result.exception)


def test_the_command_prints_a_table(fresh: Path) -> None:
    result = CliRunner().invoke(app, ["saliency", str(fresh), "--count", "5", "--pictures", "1"])
    assert result.exit_code == 0, result.output
    assert "Share of the attribution inside the object's box" in result.output
    assert "adversarial (fgsm at 0.03)" in result.output
    assert "saliency.html" in result.output


def test_the_overlay_frames_the_box() -> None:
    pixels = np.full((8, 8, 3), 100, np.uint8)
    heat = np.zeros((8, 8), np.uint8)
    heat[4, 4] = 255
    shown = overlay(SaliencyImage("c", "saliency", 0, 0, "clean", pixels, heat, (2, 3, 6, 7), 1.0), scale=2)
    assert shown.shape == (16, 16, 3)
    cyan = (shown == (0, 255, 255)).all(axis=2)
    rows, columns = np.nonzero(cyan)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 15, 4, 13)
    assert not cyan[8:14, 6:12].any()
    assert shown[8, 8].tolist() == [208, 208, 208]
    assert shown[0, 0].tolist() == [80, 80, 80]
