"""A user's own model: built by a function, or read from TorchScript, torch.export or ONNX."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_tin.devices import taking_images
from robustbench_tin.errors import InvalidSettingError, WeightsError, one_line
from robustbench_tin.models.adapters import adapter_hint
from robustbench_tin.models.as_module import Called, FixedBatch, as_module
from robustbench_tin.models.modes import to_eval_mode
from robustbench_tin.models.onnx_session import OnnxSession
from robustbench_tin.models.outputs import NamedOutputs, output_hint
from robustbench_tin.models.weights_file import read_weights_file, tensors_digest

_EXPECTED = (
    "expected package.module:factory, FILE.py:factory, a backbone's name, timm:NAME, hf-hub:NAME, a"
    " TorchScript file (.pt, .ts), an exported program (.pt2) or an ONNX file (.onnx)"
)


@dataclass(frozen=True)
class UserModel:
    """A model and the known facts about it.

    Attributes:
        module: maps pixels in [0, 1] to logits, in eval mode.
        name: its name in records.
        weights: digest of its tensors; None if it shows none, so that two such models look the same.
        gradients: True if it gives gradients.
        notes: lines to show the user once.
        original: the model that it was converted from.
    """

    module: nn.Module
    name: str
    weights: str | None
    gradients: bool = True
    notes: tuple[str, ...] = ()
    original: nn.Module | None = None

    def confirmed(self, images: Tensor) -> UserModel:
        """This model, or the original if its conversion gives other outputs.

        Args:
            images: a few images, float32 ``(N, C, H, W)`` in [0, 1].

        Raises:
            InvalidSettingError: if the original does not accept such images.
        """
        if self.original is None:
            return self
        with torch.no_grad():
            try:
                there = self.original(images.clone())
            except Exception as error:  # onnxruntime's errors have no common base
                hint = adapter_hint(self.original, images[:1])
                raise InvalidSettingError(
                    f"model '{self.name}' fails on images of shape {tuple(images.shape)}: {one_line(error)}; "
                    + (
                        hint
                        or "expected a model that maps float32 (N, C, H, W) in [0, 1] to logits (N, classes)"
                    )
                ) from error
            hint = output_hint(there)
            if hint is not None:
                raise InvalidSettingError(hint)
            try:
                here = self.module(images.clone())
                alike = here.shape == there.shape and torch.allclose(here, there, rtol=1e-3, atol=1e-4)
                what = "gives other outputs"
            except Exception as error:  # noqa: BLE001 - any error of the converted operations
                hint = adapter_hint(self.module, images[:1])
                alike, what = False, f"fails ({one_line(error)}{f'; {hint}' if hint else ''})"
        if alike:
            return self
        note = f"no gradients: its conversion to torch {what}; black-box attacks only"
        return replace(self, module=self.original, gradients=False, notes=(note,), original=None)


def is_model_file(spec: str) -> bool:
    """True if a text names a file that holds a whole model, weights included."""
    path = Path(spec)
    return path.suffix in (*_READERS, ".pt", ".pth", ".ts") or path.is_file()


def load_user_model(
    spec: str,
    weights: Path | None = None,
    device: str = "cpu",
    arguments: Mapping[str, Any] | None = None,
) -> UserModel:
    """Build or read a user's model.

    Args:
        spec: ``package.module:factory`` or ``FILE.py:factory``; or a file.
        weights: weights for the factory's model: safetensors, or a torch file of tensors.
        device: device of the model.
        arguments: keyword arguments of the factory; None for none.

    Raises:
        InvalidSettingError: if there is no such model.
        WeightsError: if the weights cannot be read or belong to another model.
    """
    path = Path(spec)
    if is_model_file(spec):
        if weights is not None:
            raise InvalidSettingError(f"model '{spec}' has its own weights; leave --weights out")
        if arguments:
            raise InvalidSettingError(f"model '{spec}' is a file, not a function; leave --model-arg out")
        if not path.is_file():
            raise InvalidSettingError(f"model '{spec}' is not a file; {_EXPECTED}")
        own = _READERS.get(path.suffix, _from_torchscript)(path)
    else:
        own = _from_factory(spec, weights, arguments or {})
    to_eval_mode(own.module.to(device))
    return replace(own, module=taking_images(own.module))


def _from_factory(spec: str, weights: Path | None, arguments: Mapping[str, Any]) -> UserModel:
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise InvalidSettingError(f"model got '{spec}'; {_EXPECTED}")
    with _importable(Path(place).parent if place.endswith(".py") else None):
        factory = getattr(_imported(place, spec), name, None)
        if not callable(factory):
            raise InvalidSettingError(f"model '{spec}': '{place}' has no function '{name}'; {_EXPECTED}")
        try:
            built: Any = factory(**arguments)
        # An exit inside the factory would end the check as if it had passed.
        except (Exception, SystemExit) as error:
            expected = (
                f"a function that takes {', '.join(arguments)}"
                if arguments
                else "a function without arguments, or --model-arg KEY=VALUE for each"
            )
            raise InvalidSettingError(
                f"model '{spec}' cannot be built: {one_line(error)}; expected {expected}"
            ) from error
    if not (isinstance(built, nn.Module) or callable(built)):
        raise InvalidSettingError(
            f"model '{spec}' returned a {type(built).__name__}; expected a torch module or a function"
        )
    notes: tuple[str, ...] = ()
    if weights is not None:
        if not isinstance(built, nn.Module):
            raise InvalidSettingError(
                f"model '{spec}' returned a function, which has no weights to load; leave --weights out"
            )
        notes = _fill(built, weights)
    module = as_module(built)
    return UserModel(module, name, weights_digest(module), notes=notes)


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Make a project's packages importable from the working directory, and a file's from its own folder."""
    added = ["", *([str(folder)] if folder is not None else [])]
    sys.path[:0] = added
    try:
        yield
    finally:
        for place in added:
            sys.path.remove(place)


def _imported(place: str, spec: str) -> ModuleType:
    try:
        return _imported_file(place, spec) if place.endswith(".py") else importlib.import_module(place)
    except InvalidSettingError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidSettingError(
            f"model '{spec}' cannot be imported: {one_line(error)}; {_EXPECTED}"
        ) from error


def _imported_file(place: str, spec: str) -> ModuleType:
    # Not by its own name: a file network.py must not hide a package network.
    name = f"robustbench_tin_model_{Path(place).stem}"
    found = importlib.util.spec_from_file_location(name, place)
    if found is None or found.loader is None or not Path(place).is_file():
        raise InvalidSettingError(f"model '{spec}': '{place}' is not a file; {_EXPECTED}")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look their module up there
    found.loader.exec_module(module)
    return module


def weights_digest(module: nn.Module) -> str | None:
    """Digest of a module's tensors, including quantised layers and extra state; None if it has no tensors.

    The digest ignores other content of the state (names, data types). A function shows only some of its
    tensors.
    """
    if isinstance(module, Called):
        return None
    if isinstance(module, FixedBatch):
        module = module.program
    return _digest(dict(_tensors("", module.state_dict())))


def _digest(state: Mapping[str, Tensor]) -> str | None:
    return tensors_digest(state) if state else None


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a state by name, dense and not quantised."""
    if isinstance(value, Tensor):
        yield from _plain(name, value)
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, each in items:
            yield from _tensors(f"{name}.{key}" if name else str(key), each)


def _plain(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if not tensor.is_quantized:
        yield name, tensor.to_dense() if tensor.layout is not torch.strided else tensor
        return
    yield f"{name}.int", tensor.int_repr()
    # Whole numbers and their scale; an axis may have a scale for each index.
    yield f"{name}.float", tensor.dequantize()


def _fill(module: nn.Module, weights: Path) -> tuple[str, ...]:
    """Load a weights file into a module; returns notes on how its tensors were found."""
    file = read_weights_file(weights)
    fitted = file.fitted(module)
    try:
        module.load_state_dict(dict(file.state) if fitted is None else fitted.state)
    except Exception as error:  # a module may load its state dict with code of its own
        raise WeightsError(
            f"weights '{weights}' do not fit this model: {one_line(error)}; expected the state dict of the"
            " model that the factory builds"
        ) from error
    return () if fitted is None else fitted.notes


def _from_torchscript(path: Path) -> UserModel:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings about its file format do not concern the user
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # a damaged file can make a foreign parser raise anything
        raise InvalidSettingError(
            f"model '{path}' is not a TorchScript file: {one_line(error)}; {_EXPECTED}; give a state dict"
            " with --weights"
        ) from error
    return UserModel(module, path.stem, weights_digest(module) or _digest(_constants(module)))


def _from_exported(path: Path) -> UserModel:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = as_module(torch.export.load(str(path)).module())
    except Exception as error:  # any error of a foreign file's reader
        raise InvalidSettingError(
            f"model '{path}' is not an exported program: {one_line(error)}; {_EXPECTED}"
        ) from error
    return UserModel(module, path.stem, weights_digest(module))


def _constants(module: Any) -> dict[str, Tensor]:
    """The tensors of a frozen script, whose weights have become constants."""
    graph = module.inlined_graph  # keep it: its nodes do not outlive it
    nodes = graph.findAllNodes("prim::Constant", recurse=True)
    held = [
        node.t("value") for node in nodes if "value" in node.attributeNames() and node.kindOf("value") == "t"
    ]
    return {str(index): tensor for index, tensor in enumerate(held)}


def _from_onnx(path: Path) -> UserModel:
    """An ONNX model as torch if the conversion knows every operation, or else as a black box."""
    if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxruntime") is None:
        raise InvalidSettingError(
            f"model '{path}' needs onnx and onnxruntime; install them: pip install 'robustbench-tin[onnx]'"
        )
    import onnx

    try:
        graph = onnx.load(str(path))
        session = OnnxSession(path)
    except Exception as error:  # protobuf's, onnx' and onnxruntime's own errors have no common base
        raise InvalidSettingError(
            f"model '{path}' is not an ONNX file: {one_line(error)}; {_EXPECTED}"
        ) from error
    weights = _digest(_onnx_tensors(graph.graph))
    try:
        from onnx2torch import convert

        module = convert(graph)
        if len(session.outputs) > 1:
            module = NamedOutputs(module, session.outputs)
        return UserModel(module, path.stem, weights, original=session)
    except Exception as error:  # noqa: BLE001 - onnx2torch is not installed, or lacks an operation
        note = f"no gradients: its conversion to torch failed ({one_line(error)}); black-box attacks only"
        return UserModel(session, path.stem, weights, gradients=False, notes=(note,))


def _onnx_tensors(graph: Any) -> dict[str, Tensor]:
    """The weights of a graph: its initializers, or its constants if an exporter stored them there."""
    from onnx.numpy_helper import to_array

    held = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    if not any(np.issubdtype(values.dtype, np.floating) for values in held.values()):
        held |= {
            node.output[0]: to_array(attribute.t)
            for node in graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
    return {name: torch.from_numpy(np.array(values)) for name, values in held.items()}


_READERS = {".onnx": _from_onnx, ".pt2": _from_exported}
