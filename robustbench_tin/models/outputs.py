"""Selection of the logits from a model's output that has several parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from robustbench_tin.errors import InvalidSettingError

_MOST_SHOWN = 6


class SelectedOutput(nn.Module):
    """A model of whose output one part is used.

    Args:
        model: returns a mapping (``ModelOutput`` of transformers is one), a tuple, a list or an object.
        output: the part's name, or its number from 0; ``-1`` is the last.
    """

    def __init__(self, model: nn.Module, output: str | int) -> None:
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, images: Tensor) -> Any:
        """The selected part.

        Raises:
            InvalidSettingError: if the output has no such part; the message lists the parts.
        """
        answer = self.model(images)
        parts = parts_of(answer)
        if parts is None:
            raise InvalidSettingError(
                f"output got '{self.output}', but the model returns {_shown(answer)}; leave --output out"
            )
        if self.output in parts:
            return parts[str(self.output)]
        try:
            return list(parts.values())[int(self.output)]
        except (ValueError, IndexError):
            raise InvalidSettingError(
                f"output got '{self.output}', but the model returns {_listed(parts)}; expected one of these"
                f" names, or a number from 0 to {len(parts) - 1}"
            ) from None


class NamedOutputs(nn.Module):
    """A model that returns several tensors, wrapped to return them by name.

    Args:
        model: returns a sequence of tensors.
        names: names of the tensors.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Each tensor by its name."""
        return dict(zip(self.names, self.model(images), strict=True))


def parts_of(answer: object) -> dict[str, Any] | None:
    """The parts of an output by name, those of a tuple by number; None if it has no parts."""
    if isinstance(answer, Tensor):
        return None
    if isinstance(answer, Mapping):
        found = {str(key): value for key, value in answer.items()}
    elif isinstance(answer, tuple | list):
        names = getattr(answer, "_fields", range(len(answer)))
        found = {str(name): value for name, value in zip(names, answer, strict=True)}
    else:
        found = dict(getattr(answer, "__dict__", {}))
    return found if any(isinstance(value, Tensor) for value in found.values()) else None


def output_hint(answer: object) -> str | None:
    """One line on how to select the logits among the parts of an output; None if it has no parts."""
    parts = parts_of(answer)
    if parts is None:
        return None
    likely = [name for name, value in parts.items() if isinstance(value, Tensor) and value.ndim == 2]
    name = next((name for name in parts if name == "logits"), [*likely, *parts][0])
    python = name if name.isdigit() else repr(name)
    return (
        f"the model returned {_listed(parts)}; expected logits (N, classes): select the part that holds them,"
        f" for example --output {name} (in Python: output={python})"
    )


def _listed(parts: Mapping[str, Any]) -> str:
    shown = [f"{name} ({_shown(value)})" for name, value in list(parts.items())[:_MOST_SHOWN]]
    more = [f"{len(parts) - _MOST_SHOWN} more"] if len(parts) > _MOST_SHOWN else []
    return f"the parts {', '.join([*shown, *more])}"


def _shown(value: object) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
