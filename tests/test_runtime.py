"""Device, precision, layout."""

from __future__ import annotations

import platform
import sys

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.runtime import Runtime, as_tensor, choose_device, choose_precision, tune_allocator


def test_devices_are_named_as_torch_names_them() -> None:
    assert choose_device("cpu") == "cpu"
    assert torch.zeros(1, device=choose_device(None)).item() == 0


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "meta", "cpu:x"])
def test_devices_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(InvalidSettingError, match=f"device got '{name}', which is not available here"):
        choose_device(name)


def test_placing_sets_the_layout() -> None:
    kernel = Runtime("cpu").place(nn.Conv2d(3, 4, 3)).weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert Runtime("cpu", channels_last=False).place(nn.Conv2d(3, 4, 3)).weight.is_contiguous()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_autocast_computes_in_the_precision(precision: str) -> None:
    with Runtime("cpu", precision).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == getattr(torch, precision)


def test_depthwise_networks_train_in_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    plain, depthwise = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1, groups=3)
    assert choose_precision("cpu", plain, 8) == "bfloat16"
    assert choose_precision("cpu", nn.Sequential(plain, depthwise), 8) == "float32"
    # A kernel of three on a map of one pixel: the CPU's bfloat16 gradients of it are not to be trusted.
    assert choose_precision("cpu", plain, 1) == "float32"
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert choose_precision("cpu", plain, 8) == "float32"


def test_choosing_a_precision_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    choose_precision("cpu", model, 8)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model[0]._forward_pre_hooks


@pytest.mark.filterwarnings("error")
def test_read_only_arrays_become_tensors_without_a_copy() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    array.flags.writeable = False
    tensor = as_tensor(array)
    assert tensor.data_ptr() == array.ctypes.data
    assert tensor.tolist() == array.tolist()


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="the GNU C library's allocator"
)
def test_the_allocator_is_tuned_unless_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, option: int, value: int) -> None:
            calls.append((option, value))

    monkeypatch.setattr("ctypes.CDLL", lambda name: Library())
    monkeypatch.setenv("ROBUST_TIN_MALLOC", "system")
    tune_allocator()
    assert calls == []
    monkeypatch.delenv("ROBUST_TIN_MALLOC")
    tune_allocator()
    assert len(calls) == 2
