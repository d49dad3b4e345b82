"""A model of the user's own: built by a function, or read from a TorchScript or an ONNX file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_tin.errors import InvalidSettingError, WeightsError, one_line
from robustbench_tin.models.weights_file import read_weights_file, tensors_digest

_EXPECTED = (
    "expected package.module:factory, FILE.py:factory, a TorchScript file (.pt, .ts) or an ONNX file (.onnx)"
)


@dataclass(frozen=True)
class OwnModel:
    """A model and what is known of it.

    Attributes:
        module: pixels in [0, 1] to logits, in eval mode.
        name: for records.
        weights: digest of its tensors.
        gradients: whether it can be asked for gradients.
        notes: lines worth showing once.
        original: what it was converted from.
    """

    module: nn.Module
    name: str
    weights: str
    gradients: bool = True
    notes: tuple[str, ...] = ()
    original: nn.Module | None = None

    def confirmed(self, images: Tensor) -> OwnModel:
        """The original in the place of a conversion that does not answer as it does.

        Args:
            images: a few, float32 ``(N, C, H, W)`` in [0, 1].
        """
        if self.original is None:
            return self
        with torch.inference_mode():
            here, there = self.module(images), self.original(images)
        if here.shape == there.shape and torch.allclose(here, there, rtol=1e-3, atol=1e-4):
            return self
        note = "no gradients: its conversion to torch gives other answers; black-box attacks only"
        return replace(self, module=self.original, gradients=False, notes=(note,), original=None)


class OnnxSession(nn.Module):
    """An ONNX graph run by onnxruntime on the CPU: answers, and no gradients."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        super().__init__()
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images, on the device of these."""
        (logits, *_) = self._session.run(None, {self._input: images.detach().cpu().float().numpy()})
        return torch.from_numpy(logits).to(images.device)


def load_own_model(spec: str, weights: Path | None = None, device: str = "cpu") -> OwnModel:
    """Build or read a model.

    Args:
        spec: ``package.module:factory`` or ``FILE.py:factory``, called without arguments; or a file.
        weights: put into what the factory built: safetensors, or a torch file of tensors.
        device: where it goes.

    Raises:
        InvalidSettingError: where there is no such model.
        WeightsError: where the weights cannot be read or are another model's.
    """
    path = Path(spec)
    if path.suffix in (".onnx", ".pt", ".pth", ".ts") or path.is_file():
        if weights is not None:
            raise InvalidSettingError(f"model '{spec}' brings its weights; leave --weights out")
        if not path.is_file():
            raise InvalidSettingError(f"model '{spec}' is no file; {_EXPECTED}")
        own = _from_onnx(path) if path.suffix == ".onnx" else _from_torchscript(path)
    else:
        own = _from_factory(spec, weights)
    own.module.to(device).eval()
    return own


def _from_factory(spec: str, weights: Path | None) -> OwnModel:
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise InvalidSettingError(f"model got '{spec}'; {_EXPECTED}")
    module = _imported(place, spec)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise InvalidSettingError(f"model '{spec}': '{place}' has no function '{name}'; {_EXPECTED}")
    try:
        built: Any = factory()
    except Exception as error:
        raise InvalidSettingError(
            f"model '{spec}' cannot be built: {one_line(error)}; expected a function without arguments"
        ) from error
    if not isinstance(built, nn.Module):
        raise InvalidSettingError(f"model '{spec}' gave a {type(built).__name__}; expected a torch module")
    if weights is not None:
        _fill(built, weights)
    return OwnModel(built, name, tensors_digest(built.state_dict()))


def _imported(place: str, spec: str) -> ModuleType:
    try:
        if place.endswith(".py"):
            found = importlib.util.spec_from_file_location(Path(place).stem, place)
            if found is None or found.loader is None or not Path(place).is_file():
                raise InvalidSettingError(f"model '{spec}': '{place}' is no file; {_EXPECTED}")
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
            return module
        # As python -m has it: a project's own packages lie in the working directory.
        sys.path.insert(0, "")
        try:
            return importlib.import_module(place)
        finally:
            sys.path.remove("")
    except InvalidSettingError:
        raise
    except Exception as error:
        raise InvalidSettingError(
            f"model '{spec}' cannot be imported: {one_line(error)}; {_EXPECTED}"
        ) from error


def _fill(module: nn.Module, weights: Path) -> None:
    state = read_weights_file(weights).state
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise WeightsError(
            f"weights '{weights}' are not this model's: {one_line(error)}; expected the state dict of"
            " what the factory builds"
        ) from error


def _from_torchscript(path: Path) -> OwnModel:
    try:
        module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise InvalidSettingError(
            f"model '{path}' is no TorchScript file: {one_line(error)}; {_EXPECTED}"
        ) from error
    return OwnModel(module, path.stem, tensors_digest(module.state_dict()))


def _from_onnx(path: Path) -> OwnModel:
    """As torch where the conversion knows every operation, else as a black box."""
    if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxruntime") is None:
        raise InvalidSettingError(
            f"model '{path}' needs onnx and onnxruntime; install them with pip install"
            " 'robustbench-tin[onnx]'"
        )
    import onnx

    try:
        graph = onnx.load(str(path))
        session = OnnxSession(path)
    except Exception as error:  # protobuf's, onnx' and onnxruntime's own errors have no common base
        raise InvalidSettingError(
            f"model '{path}' is no ONNX file: {one_line(error)}; {_EXPECTED}"
        ) from error
    weights = tensors_digest(
        {
            tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            for tensor in graph.graph.initializer
        }
    )
    try:
        from onnx2torch import convert

        return OwnModel(convert(graph), path.stem, weights, original=session)
    except Exception as error:  # noqa: BLE001 - not installed, or an operation that it does not know
        note = f"no gradients: its conversion to torch failed ({one_line(error)}); black-box attacks only"
        return OwnModel(session, path.stem, weights, gradients=False, notes=(note,))
