"""Networks on a device that lacks float64."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from robustbench_tin import devices
from robustbench_tin.devices import MovedImages, device_of, images_device, taking_images
from robustbench_tin.models.as_module import name_of
from robustbench_tin.models.normalisation import Normalized
from robustbench_tin.runtime import Runtime, choose_device


def test_images_lie_on_the_cpu_if_the_device_lacks_float64() -> None:
    assert images_device("mps") == images_device("mps:0") == torch.device("cpu")
    assert images_device("cuda:1") == torch.device("cuda:1")


def test_figures_do_not_depend_on_it() -> None:
    """The device refuses float64 and tensors of the CPU: balls and checks are computed beside it."""
    script = Path(__file__).with_name("device_without_float64.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["there"] == figures["there, a function"] == figures["cpu"]
    assert figures["there, l2"] == figures["cpu, l2"]
    assert figures["there, normalised"] == figures["there, ours"] == figures["cpu, normalised"]
    assert figures["cpu, ours"] == figures["cpu, normalised"]
    for clean, *attacked in figures.values():
        assert clean > 0.5
        assert max(attacked) < clean


def test_only_a_model_on_such_a_device_has_its_images_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", frozenset({"meta"}))
    model = taking_images(nn.Linear(3, 2, device="meta"))
    assert isinstance(model, MovedImages)
    assert taking_images(model) is model
    assert name_of(model) == "Linear"
    here = nn.Linear(3, 2)
    assert taking_images(here) is here


def test_a_network_is_placed_with_its_images_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", frozenset({"meta"}))
    runtime = Runtime("meta", channels_last=False)
    placed = runtime.place(nn.Linear(3, 2))
    assert device_of(placed) == torch.device("meta")
    assert runtime.torch_device == torch.device("cpu")
    assert Normalized(placed, 0.5, 0.5).mean.device == torch.device("cpu")


def test_mps_is_chosen_by_itself_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device(None) == "mps"
