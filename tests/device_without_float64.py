"""A device without float64, simulated on the CPU: its tensors cannot meet those of another device.

Registered as a backend of torch's, once a process; so the tests that need it run in a process of their own.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch import library as operators
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

DEVICE = "short_floats"


class OnDevice(torch.Tensor):
    """A tensor of the device; ``raw`` holds its values."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: Tensor) -> OnDevice:
        if raw.dtype == torch.float64:
            raise TypeError(f"{DEVICE} has no float64")
        made = torch._C._acc.create_empty_tensor(raw.shape, raw.dtype)
        made.__class__ = cls
        made.raw = raw
        return made


class OnlyThere(nn.Module):
    """A network of the device, as far as its caller can see: it takes images there, and answers there.

    Args:
        network: computes, out of its caller's sight.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.register_buffer("place", OnDevice(torch.zeros(1)))
        self.hidden = [network]

    def forward(self, images: Tensor) -> Tensor:
        """Logits, on the device."""
        assert images.device.type == DEVICE, f"images are on {images.device}"
        return self.hidden[0](images.to("cpu")).to(DEVICE)


def register() -> None:
    """Make the device known to torch."""
    _setup_privateuseone_for_python_backend(DEVICE)
    everything = operators.Library("_", "IMPL")
    everything.fallback(_anything, "PrivateUse1")
    some = operators.Library("aten", "IMPL")
    some.impl("empty.memory_format", _empty, "PrivateUse1")
    some.impl("empty_strided", _empty_strided, "PrivateUse1")
    some.impl("_copy_from", _copy_from, "PrivateUse1")
    for alias in ("detach", "alias"):
        some.impl(alias, lambda there: OnDevice(there.raw), "PrivateUse1")
    _LIBRARIES.extend([everything, some])


# Kept alive: the end of a library ends its registrations.
_LIBRARIES: list[operators.Library] = []


def _anything(operation: Any, *args: Any, **kwargs: Any) -> Any:
    def there(value: Any) -> Any:
        if isinstance(value, Tensor) and not isinstance(value, OnDevice) and value.ndim:
            raise RuntimeError(f"{operation} got a tensor of the CPU beside one of {DEVICE}")
        return value.raw if isinstance(value, OnDevice) else value

    answer = operation(*pytree.tree_map(there, args), **pytree.tree_map(there, kwargs))
    return pytree.tree_map_only(Tensor, OnDevice, answer)


def _empty(size: Any, dtype: torch.dtype | None = None, **_: Any) -> OnDevice:
    return OnDevice(torch.empty(size, dtype=dtype))


def _empty_strided(size: Any, stride: Any, dtype: torch.dtype | None = None, **_: Any) -> OnDevice:
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    raw = [each.raw if isinstance(each, OnDevice) else each for each in (source, target)]
    raw[1].copy_(raw[0])
    return target


def main() -> int:
    """Measure one network on the CPU and on the device, as a module and as a classifier of ours."""
    from robustbench_tin import devices, evaluate
    from robustbench_tin.models.classifier import Classifier

    register()
    devices.WITHOUT_FLOAT64 = frozenset({DEVICE})
    torch.manual_seed(0)
    images, labels = torch.rand(24, 3, 8, 8), torch.arange(24) % 4
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    labels[:18] = network(images[:18]).argmax(dim=1)

    def classifier(inner: nn.Module) -> Classifier:
        facts = {"num_classes": 4, "image_size": 8, "input_size": 8, "mean": (0.4,) * 3, "std": (0.5,) * 3}
        return Classifier(inner, backbone="toy", **facts).eval()

    ours = classifier(OnlyThere(network))
    ours.mean, ours.std = OnDevice(ours.mean), OnDevice(ours.std)
    there = OnlyThere(network)
    half = {"mean": 0.4, "std": 0.5}

    def top1(model: Any, **settings: Any) -> list[float]:
        asked = {"attacks": "fgsm,pgd:steps=3,apgd-ce:steps=5", "eps": (0.0, 0.02), **settings}
        return [float(accuracy) for accuracy in evaluate(model, images, labels, **asked).records["top1"]]

    figures = {
        "cpu": top1(network),
        "there": top1(there),
        "there, a function": top1(lambda pixels: there(pixels)),
        "cpu, l2": top1(network, norm="l2", eps=(0.0, 0.2)),
        "there, l2": top1(there, norm="l2", eps=(0.0, 0.2)),
        "cpu, normalised": top1(network, **half),
        "there, normalised": top1(there, **half),
        "cpu, ours": top1(classifier(network)),
        "there, ours": top1(ours),
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
