"""The plug-in, in a test run of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import robustbench_tin

TESTS = '''
import pytest
import torch
from torch import nn


class Brightness(nn.Module):
    """Class 1 for bright images: the margin of an image is twice its distance from grey."""

    asked = 0

    def __init__(self, shift=0.0):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, images):
        Brightness.asked += 1
        light = images.mean(dim=(1, 2, 3)) - 0.5 + self.shift
        return torch.stack([-light, light], dim=1)


# Half of the images lie 0.02 from grey, half 0.2.
images = torch.full((40, 3, 4, 4), 0.5)
away = torch.tensor([0.02, 0.2] * 20) * torch.tensor([1, 1, -1, -1] * 10)
images += away[:, None, None, None]
labels = (away > 0).long()

def test_floors_that_are_kept(robustness):
    robustness(Brightness(), images, labels).at_least(clean=1.0, fgsm=0.5, pgd=0.5, eps=0.05)


def test_a_floor_that_is_not_kept(robustness):
    robustness(Brightness(), images, labels).at_least(fgsm=0.6, eps=0.05)


def test_a_model_is_measured_once(robustness):
    model = Brightness()
    robustness(model, images, labels).at_least(fgsm=0.4, eps=0.05)
    asked = Brightness.asked
    robustness(model, images, labels).at_least(fgsm=0.3, eps=0.05)
    assert Brightness.asked == asked > 0
    with torch.no_grad():
        model.shift += 0.001
    robustness(model, images, labels).at_least(fgsm=0.3, eps=0.05)
    assert Brightness.asked > asked


def test_images_of_every_type(robustness):
    for change in (torch.Tensor.bfloat16, torch.Tensor.double, list, torch.Tensor.numpy):
        robustness(Brightness(), change(images), labels).at_least(fgsm=0.4, eps=torch.tensor(0.05))


def test_labels_that_come_with_the_images(robustness):
    data = torch.utils.data.TensorDataset(images, labels)
    measured = robustness(Brightness(), torch.utils.data.DataLoader(data, 8))
    measured.at_least(fgsm=0.4, eps="0.05")


def test_a_budget_of_255(robustness):
    robustness(Brightness(), images, labels).at_least(fgsm=0.0, eps=8)


@pytest.fixture
def file(robustness, tmp_path):
    path = tmp_path / "baseline.json"
    robustness(Brightness(), images, labels).save_baseline(path, attacks="fgsm,pgd:steps=3", eps="0.01,0.05")
    return path


def test_the_same(robustness, file):
    robustness(Brightness(), images, labels).not_worse_than(file)


def test_other_weights(robustness, file):
    model = Brightness()
    with torch.no_grad():
        model.shift += 0.03
    robustness(model, images, labels).not_worse_than(file)


def test_changed_around_the_weights(robustness, file):
    class Dimmed(Brightness):
        def forward(self, images):
            return super().forward(images * 0.9)

    robustness(Dimmed(), images, labels).not_worse_than(file, max_drop=0.05)


def test_rules_of_another_model(robustness, file, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text(
        '[tool.robust-tin.max-drop]\\n"resnet*/none/*" = 0.03\\n[tool.robust-tin.min]\\n"pgd*@0.05" = 0.6\\n'
    )
    monkeypatch.chdir(tmp_path)
    robustness(Brightness(), images, labels).not_worse_than(file)


class Bare(nn.Module):
    """The same without a tensor of its own."""

    def forward(self, images):
        light = images.mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-light, light], dim=1)


def test_no_weights(robustness, tmp_path):
    measured = robustness(Bare(), images, labels)
    measured.save_baseline(tmp_path / "bare.json", attacks="fgsm", eps="0.01")
    measured.not_worse_than(tmp_path / "bare.json", retrained=False)
    measured.not_worse_than(tmp_path / "bare.json")


def test_no_eps(robustness):
    robustness(Brightness(), images, labels).at_least(pgd=0.3)


def test_no_such_file(robustness):
    robustness(Brightness(), images, labels).not_worse_than("absent.json")
'''


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The message with which each of the tests above failed; empty if it passed."""
    place = tmp_path_factory.mktemp("user")
    (place / "test_mine.py").write_text(TESTS)
    # Installed or not, the plug-in of this checkout is the one that is meant.
    plugins = ("-p", "no:robust-tin", "-p", "robustbench_tin.pytest_plugin", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *plugins, "-q", "--junit-xml", "results.xml"]
    here = str(Path(robustbench_tin.__file__).parents[1])
    done = subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "PYTHONPATH": here},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (place / "results.xml").exists(), done.stdout + done.stderr
    return {
        str(case.get("name")): "".join(part.text or "" for part in case)
        for case in ET.parse(place / "results.xml").iter("testcase")
    }


@pytest.mark.parametrize(
    "name",
    [
        "floors_that_are_kept",
        "a_model_is_measured_once",
        "the_same",
        "images_of_every_type",
        "labels_that_come_with_the_images",
    ],
)
def test_what_holds_passes(messages: dict[str, str], name: str) -> None:
    assert messages[f"test_{name}"] == ""


def test_a_floor_that_is_not_kept_fails_with_the_table(messages: dict[str, str]) -> None:
    message = messages["test_a_floor_that_is_not_kept"]
    (row,) = (line.split() for line in message.splitlines() if "fgsm@0.05" in line and "BELOW" in line)
    assert row[0] == "Brightness"
    assert {"50.0", "60.0"} <= set(row)
    assert "50 %, but a rule requires at least 60 %" in message
    assert "pytest_plugin.py" not in message


def test_a_change_around_the_weights_is_told_from_a_retraining(messages: dict[str, str]) -> None:
    around = messages["test_changed_around_the_weights"]
    assert "normalisation, value range" in around
    assert "same images" in around
    assert "WORSE" in around
    other = messages["test_other_weights"]
    assert "assumed because the baseline has one seed" in other


def test_a_mistake_is_told(messages: dict[str, str]) -> None:
    assert "at_least(pgd) got eps 0.0; expected more than 0" in messages["test_no_eps"]
    assert messages["test_no_such_file"].startswith("baseline 'absent.json' cannot be read")
    assert "\n" not in messages["test_no_such_file"]
    assert messages["test_a_budget_of_255"].startswith("eps got 8; expected at most 1 in linf")


def test_of_a_projects_rules_those_that_fit_hold(messages: dict[str, str]) -> None:
    message = messages["test_rules_of_another_model"]
    assert "50 %, but a rule requires at least 60 %" in message
    assert "resnet" not in message


def test_a_model_without_weights_is_asked_about(messages: dict[str, str]) -> None:
    assert "the weights are not available" in messages["test_no_weights"]
