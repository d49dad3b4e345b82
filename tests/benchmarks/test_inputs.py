"""Input of ``evaluate``: every usual type gives the same figures, every mistake gives one line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from light_attacks import EVERY_ATTACK
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from toys import Toy

from robustbench_tin.attacks import parse_attack
from robustbench_tin.benchmarks.evaluate import evaluate
from robustbench_tin.benchmarks.measurement.inputs import as_images_and_labels
from robustbench_tin.benchmarks.perturb import perturb
from robustbench_tin.errors import InvalidSettingError, RobustTinError

FIGURES = ["attack", "eps", "top1", "top5", "status"]


@pytest.fixture
def toy(toy: Toy) -> Toy:
    # Values that every type can hold.
    images = (toy.images[:12] * 4).round() / 4
    return Toy(toy.model, images, toy.labels[:12])


def figures(
    model: nn.Module, images: Any, labels: Any = None, eps: Any = 0.03, **options: Any
) -> pd.DataFrame:
    return evaluate(model, images, labels, options.pop("attacks", ["fgsm"]), eps, **options).records[FIGURES]


@pytest.fixture
def right(toy: Toy) -> pd.DataFrame:
    return figures(toy.model, toy.images, toy.labels)


class Rows(Dataset):
    """Images one by one, as data sets of torchvision and Hugging Face give them."""

    def __init__(self, toy: Toy, kind: str) -> None:
        self.toy, self.kind = toy, kind

    def __len__(self) -> int:
        return len(self.toy.labels)

    def __getitem__(self, row: int) -> object:
        image, label = self.toy.images[row], int(self.toy.labels[row])
        if self.kind == "dict":
            return {"pixel_values": image, "label": label}
        return (image, label) if self.kind == "pair" else image


class Stream(IterableDataset):
    def __init__(self, toy: Toy) -> None:
        self.toy = toy

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(self.toy.images, self.toy.labels, strict=True))


IMAGES = {
    "big-endian": lambda x: x.numpy().astype(">f4"),
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "requires grad": lambda x: x.clone().requires_grad_(),
    "parameter": lambda x: nn.Parameter(x),
    "not contiguous": lambda x: x.numpy().transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "a list of tensors": list,
    "two images in a list": lambda x: [*x[:2], *x[2:]],
    "a tuple of arrays": lambda x: tuple(x.numpy()),
    "a list of batches": lambda x: [x[:5], x[5:]],
    "a generator": lambda x: (image for image in x),
    "read-only": lambda x: np.broadcast_to(x.numpy(), x.shape),
}


@pytest.mark.parametrize("change", IMAGES.values(), ids=IMAGES.keys())
def test_images_of_every_type(toy: Toy, right: pd.DataFrame, change: Any) -> None:
    assert figures(toy.model, change(toy.images), toy.labels).equals(right)


LABELS = {
    **{
        name: lambda y, name=name: y.numpy().astype(name)
        for name in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", "O")
    },
    **{
        str(kind): lambda y, kind=kind: y.to(kind)
        for kind in (torch.uint8, torch.int16, torch.int32, torch.uint16, torch.uint64)
    },
    "list": lambda y: y.tolist(),
    "tuple of tensors": tuple,
    "list of numpy": lambda y: list(y.numpy()),
    "series": lambda y: pd.Series(y.numpy()),
}


@pytest.mark.parametrize("change", LABELS.values(), ids=LABELS.keys())
def test_labels_of_every_integer_type(toy: Toy, right: pd.DataFrame, change: Any) -> None:
    assert figures(toy.model, toy.images, change(toy.labels)).equals(right)


@pytest.mark.parametrize(
    "source",
    [
        lambda toy: DataLoader(TensorDataset(toy.images, toy.labels), batch_size=5),
        lambda toy: DataLoader(Rows(toy, "dict"), batch_size=5),
        lambda toy: TensorDataset(toy.images, toy.labels),
        lambda toy: Rows(toy, "pair"),
        lambda toy: Rows(toy, "dict"),
        Stream,
        lambda toy: list(zip(toy.images, toy.labels, strict=True)),
        lambda toy: (toy.images, toy.labels),
    ],
    ids=["loader", "dicts in a loader", "tensors", "pairs", "dicts", "stream", "list of pairs", "a batch"],
)
def test_labels_that_come_with_the_images(toy: Toy, right: pd.DataFrame, source: Any) -> None:
    assert figures(toy.model, source(toy)).equals(right)
    assert figures(toy.model, source(toy), toy.labels).equals(right)
    with pytest.raises(InvalidSettingError, match="labels got other values than the labels that come with"):
        figures(toy.model, source(toy), (toy.labels + 1) % 3)


def test_images_of_pillow(toy: Toy) -> None:
    pixels = (toy.images * 255).round().byte()
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    images, labels = as_images_and_labels(list(zip(pictures, toy.labels.tolist(), strict=True)), None)
    assert torch.equal(images, pixels)
    assert torch.equal(labels, toy.labels)


@pytest.mark.parametrize(
    "eps",
    [
        np.float32(0.03),
        np.float64(0.03),
        torch.tensor(0.03),
        torch.tensor(0.03, dtype=torch.float64),
        np.array(0.03),
        "0.03",
        [np.float32(0.03)],
        np.array([0.03], np.float32),
        torch.tensor([0.03]),
        (torch.tensor(0.03),),
    ],
    ids=repr,
)
def test_budgets_of_every_type(toy: Toy, right: pd.DataFrame, eps: Any) -> None:
    assert figures(toy.model, toy.images, toy.labels, eps).equals(right)


def test_whole_numbers_of_every_type(toy: Toy, right: pd.DataFrame) -> None:
    assert figures(toy.model, toy.images, toy.labels, seed=np.int64(0), batch_size=np.int32(4)).equals(right)
    assert figures(toy.model, toy.images, toy.labels, np.int64(0)).equals(right.iloc[:1])
    assert figures(toy.model, toy.images, toy.labels, attacks=[parse_attack("fgsm")]).equals(right)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "eps None": ({"eps": None}, "eps got None; expected a number"),
    "eps a word": ({"eps": "much"}, "eps got 'much'"),
    "eps in a dict": ({"eps": [{}]}, "eps got {}"),
    "eps true": ({"eps": True}, "eps got True"),
    "eps on meta": ({"eps": torch.tensor(0.1, device="meta")}, "eps got"),
    "eps of two in one": ({"eps": [torch.tensor([0.1, 0.2])]}, "eps got"),
    "eps 8": ({"eps": 8}, "eps got 8; expected at most 1 in linf.*write 8/255"),
    "attacks []": ({"attacks": []}, "attacks got an empty list"),
    "attacks ''": ({"attacks": ""}, "attacks got an empty list"),
    "attacks None": ({"attacks": None}, "attacks got None"),
    "attacks [3]": ({"attacks": [3]}, "attacks got 3"),
    "alpha of 255": ({"attacks": ["pgd:alpha=2"]}, "attack 'pgd' got alpha 2; expected at most 1.*2/255"),
    "labels None": ({"labels": None}, "labels got None"),
    "labels strings": ({"labels": ["cat"] * 12}, "labels got"),
    "labels floats": ({"labels": np.zeros(12)}, "expected class indices"),
    "labels huge": ({"labels": np.full(12, 2**64 - 1, np.uint64)}, "negative or huge"),
    "labels of two sizes": ({"labels": [[1], [1, 2]]}, "labels got"),
    "labels one hot": ({"labels": np.zeros((12, 3), int)}, r"labels got shape \(12, 3\)"),
    "images None": ({"images": None}, "got neither of data and images"),
    "images a word": ({"images": "cats.png"}, "unknown data set 'cats.png'"),
    "images a number": ({"images": 3}, "images got 3"),
    "images empty": ({"images": []}, "images got shapes none"),
    "images complex": ({"images": torch.zeros(12, 3, 8, 8, dtype=torch.complex64)}, "images got"),
    "images on meta": ({"images": torch.zeros(12, 3, 8, 8, device="meta")}, "images got"),
    "images of two sizes": ({"images": [torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)]}, "images got shapes"),
    "images of a failing set": ({"images": Rows(None, "pair")}, "images got a Rows that fails"),  # type: ignore[arg-type]
    "model a word": ({"model": "resnet50"}, "model got"),
    "model None": ({"model": None}, "model got"),
    "model on meta": ({"model": nn.Linear(3, 2, device="meta")}, "meta device"),
    "seed": ({"seed": 1.5}, "seed got 1.5; expected a whole number"),
    "batch size": ({"batch_size": "8"}, "batch_size got '8'"),
    "mean alone": ({"mean": 0.5}, "got mean without std"),
    "mean of 255": ({"mean": [123.7, 116.3, 103.5], "std": 1}, "divide the values by 255"),
    "std 0": ({"mean": 0, "std": 0}, "std got 0.*above 0"),
    "mean of two channels": ({"mean": [0.5, 0.5], "std": 1}, "mean got 2 values; expected 1 or 3"),
}


@pytest.mark.parametrize(("given", "told"), BAD.values(), ids=BAD.keys())
def test_mistakes_are_one_line(toy: Toy, given: dict[str, Any], told: str) -> None:
    words = {"model": toy.model, "images": toy.images, "labels": toy.labels, "attacks": "fgsm", "eps": 0.03}
    with pytest.raises(RobustTinError, match=told) as caught:
        evaluate(**{**words, **given})
    assert len(str(caught.value).splitlines()) == 1


def test_an_l2_budget_may_be_above_1(toy: Toy) -> None:
    assert figures(toy.model, toy.images, toy.labels, 2, norm="l2").status.tolist() == ["ok", "ok"]
    assert (
        perturb(toy.model, toy.images, toy.labels, "pgd:alpha=2,steps=2", 3, norm="l2").shape
        == toy.images.shape
    )


@pytest.fixture
def float64_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@EVERY_ATTACK
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_default_dtype_changes_nothing(toy: Toy, float64_default: None, name: str, norm: str) -> None:
    if norm not in parse_attack(name).norms:
        pytest.skip("not in this norm")
    eps = 0.05 if norm == "linf" else 0.5
    found = []
    for kind in (torch.float32, torch.float64):
        torch.set_default_dtype(kind)
        record = evaluate(toy.model, toy.images, toy.labels, name, eps, norm, trust=name == "fgsm").records
        moved = perturb(toy.model, toy.images, toy.labels, name, eps, norm)
        found.append((record[[*FIGURES, "trust"]], moved))
    (first, moved), (second, moved_again) = found
    assert first.equals(second)
    assert moved.dtype == moved_again.dtype == torch.float32
    assert torch.equal(moved, moved_again)


def test_normalisation_given_beside_the_model_is_that_of_the_model(toy: Toy) -> None:
    class Expects(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = toy.model

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images * 0.25 + 0.5)

    given = figures(Expects(), toy.images, toy.labels, mean=[0.5, 0.5, 0.5], std=(0.25, 0.25, 0.25))
    assert given.equals(figures(toy.model, toy.images, toy.labels))
    record = evaluate(Expects(), toy.images, toy.labels, "fgsm", 0.03, mean=0.5, std=0.25).records
    assert record.model.tolist() == ["Expects", "Expects"]


CONFIG = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Published(nn.Module):
    """A network with the settings of a published one."""

    def __init__(self, network: nn.Module, **settings: Any) -> None:
        super().__init__()
        self.network = network
        for name, value in settings.items():
            setattr(self, name, value)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


class Around(nn.Module):
    def __init__(self, network: nn.Module, scale: float, shift: float) -> None:
        super().__init__()
        self.network, self.scale, self.shift = network, scale, shift

    def forward(self, images: Tensor) -> Tensor:
        larger = nn.functional.interpolate(images, scale_factor=2.0)
        return self.network(larger[..., ::2, ::2] * self.scale + self.shift)


class Processor:
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.5, 0.5, 0.5)


def told(model: nn.Module, toy: Toy, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(model, toy.images, toy.labels, "fgsm", 0, **options)
    return [str(each.message) for each in caught if "normalis" in str(each.message)]


def test_a_model_that_lacks_its_normalisation_is_told(toy: Toy) -> None:
    bare = Published(toy.model, pretrained_cfg=CONFIG)
    (line,) = told(bare, toy)
    assert line.startswith("Published's settings require images normalised with mean (0.485, 0.456, 0.406)")
    assert len(told(nn.Sequential(bare), toy)) == 1
    assert len(told(Around(bare, 1, 0), toy)) == 1  # resized on the way, and no more
    assert len(told(Published(toy.model, image_processor=Processor()), toy)) == 1
    (line,) = told(bare, toy, mean=0.5, std=0.5)
    assert line.endswith("but others were given: give these, unless it was trained otherwise")


def test_a_model_that_is_normalised_is_not_told(toy: Toy) -> None:
    class Normalize(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images

    bare = Published(toy.model, pretrained_cfg=CONFIG)
    assert told(bare, toy, mean=CONFIG["mean"], std=CONFIG["std"]) == []
    assert told(nn.Sequential(Normalize(), bare), toy) == []
    assert told(Around(bare, 2, -1), toy) == []
    assert told(Around(bare, 255, 0), toy) == []
    assert told(Published(toy.model, pretrained_cfg={"mean": (0, 0, 0), "std": (1, 1, 1)}), toy) == []
    assert told(Published(toy.model, pretrained_cfg={}, config=object()), toy) == []
    assert told(toy.model, toy) == []
