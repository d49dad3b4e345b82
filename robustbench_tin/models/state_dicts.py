"""Search for a model's tensors in a checkpoint: nested, prefixed by wrappers, averaged.

The search first uses the keys unchanged. If they do not fit, it removes or adds prefixes, and ignores the
parts that wrappers insert into keys. A part of a checkpoint fits if it has every tensor of the model, each
with its shape, and no other tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from robustbench_tin.errors import WeightsError

State = Mapping[str, Any]

# Parts that DataParallel, torch.compile, FSDP and checkpointing insert into keys; they name no layer.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_USUAL = _WRAPPERS | {
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights"),
}
_AVERAGES = ("ema", "swa", "averaged", "teacher", "shadow")
_AVERAGED_STEPS = "n_averaged"  # AveragedModel's own counter, beside the model's tensors
_COUNTER = "num_batches_tracked"  # matters only to a cumulative average, and converted files often lack it
_DEPTH = 4


@dataclass(frozen=True)
class Fitted:
    """A model's state dict, found in a checkpoint.

    Attributes:
        state: tensors by the model's own keys.
        notes: the changes made to find it, for the user; empty if the keys are unchanged.
    """

    state: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Match:
    """One way to fill the model: ``put + key`` in the model is ``off + key`` in the part at ``place``."""

    place: tuple[str, ...]
    off: tuple[str, ...]
    put: tuple[str, ...]
    wrapped: bool
    state: dict[str, Any] = field(compare=False)
    kept: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """Sort key of matches: averaged weights and unusual names come last."""
        names = [name.lower() for name in (*self.place, *self.off)]
        averaged = any(word in name for name in names for word in _AVERAGES)
        return (averaged, bool(self.put), not _USUAL.issuperset(names))

    @property
    def is_plain(self) -> bool:
        """True if the keys of the whole file are the model's."""
        return not (self.place or self.off or self.put or self.wrapped or self.left_out)

    @property
    def label(self) -> str:
        """The position of the tensors in the file."""
        return ".".join((*self.place, *self.off)) or "the file's own keys"


@dataclass(frozen=True)
class _Wanted:
    """A model's state dict, its parameters' keys, and the keys that may have another shape."""

    own: State
    parameters: Collection[str]
    any_shape: Collection[str]


@dataclass(frozen=True)
class _Part:
    """The state at one place of a checkpoint, with the keys of both sides by comparable names."""

    place: tuple[str, ...]
    state: State
    theirs: Mapping[str, str]
    ours: Mapping[str, str]
    wrapped: bool

    def match(self, put: tuple[str, ...], off: tuple[str, ...], model: _Wanted) -> _Match | None:
        """The model filled with these prefixes; None if a tensor is missing, unknown or of another shape."""
        wanted, offered = _behind(put, self.ours), _behind(off, self.theirs)
        foreign = offered.keys() - wanted.keys() - {_AVERAGED_STEPS}
        if any(isinstance(self.state[offered[name]], Tensor) for name in foreign):
            return None
        filled: dict[str, Any] = {}
        for name, key in wanted.items():
            value = self.state[offered[name]] if name in offered else None
            if name in offered and (key in model.any_shape or _alike(value, model.own[key])):
                filled[key] = value
            elif name in offered or not key.endswith(_COUNTER):
                return None
        covered = set(wanted.values())
        kept = tuple(key for key in model.own if key not in covered)
        if any(key in model.parameters for key in kept):
            return None
        left_out = _tensors(self.state) - _tensors(filled)
        filled |= {key: model.own[key] for key in kept}
        return _Match(self.place, off, put, self.wrapped, filled, kept, left_out)


def collect_states(content: object) -> dict[tuple[str, ...], State]:
    """Every dict in a checkpoint that has named tensors, by the keys that lead to it, outermost first."""
    found: dict[tuple[str, ...], State] = {}
    _collect(content, (), found)
    return found


def fit(
    states: Mapping[tuple[str, ...], State],
    own: State,
    parameters: Collection[str],
    *,
    any_shape: Collection[str] = (),
    file: str,
) -> Fitted | None:
    """Find the model's tensors in a checkpoint.

    Args:
        states: from :func:`collect_states`.
        own: the model's state dict.
        parameters: keys of its parameters; buffers around a prefixed model may keep their initial values.
        any_shape: keys of the model whose tensors may have another shape.
        file: name of the checkpoint, for messages.

    Returns:
        The best match; None if no part fits.

    Raises:
        WeightsError: if several parts with different tensors fit equally well.
    """
    wanted = _Wanted(own, parameters, any_shape)
    matches: list[_Match] = []
    for place, state in states.items():
        for match in _matches(place, state, wanted):
            if match.is_plain:
                return Fitted(match.state)
            matches.append(match)
    if not matches:
        return None
    matches.sort(key=lambda match: (match.rank, len(match.place + match.off)))
    best = matches[0]
    others = [match for match in matches[1:] if not _same(match.state, best.state)]
    rivals = [match for match in others if match.rank == best.rank]
    if rivals:
        names = ", ".join(f"'{match.label}'" for match in (best, *rivals))
        raise WeightsError(
            f"weights '{file}' contain different tensors that fit equally well: {names};"
            " expected a file with one of them"
        )
    return Fitted(best.state, (_told(best, others, file),))


def without_wrappers(key: str) -> str:
    """A key without the parts that wrappers insert."""
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _collect(content: object, place: tuple[str, ...], found: dict[tuple[str, ...], State]) -> None:
    if not isinstance(content, Mapping):
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if any(isinstance(value, Tensor) for value in named.values()):
        found[place] = named
    if len(place) < _DEPTH:
        for key, value in named.items():
            _collect(value, (*place, key), found)


def _matches(place: tuple[str, ...], state: State, wanted: _Wanted) -> Iterator[_Match]:
    first = next((key for key in wanted.own if key in wanted.parameters), next(iter(wanted.own), None))
    if first is None:
        return
    plain = {key: key for key in state}, {key: key for key in wanted.own}
    stripped = _renamed(state), _renamed(wanted.own)
    for wrapped, (theirs, ours) in enumerate((plain, stripped)):
        if theirs is None or ours is None or (wrapped and stripped == plain):
            continue
        part = _Part(place, state, theirs, ours, bool(wrapped))
        for put, off in _prefixes(without_wrappers(first) if wrapped else first, theirs):
            match = part.match(put, off, wanted)
            if match is not None:
                yield match


def _renamed(state: State) -> dict[str, str] | None:
    """The state's keys by their names without wrappers; None if two keys become the same."""
    names = {without_wrappers(key): key for key in state}
    return names if len(names) == len(state) else None


def _prefixes(first: str, theirs: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The prefixes that may have to be added to the file's keys, and those to be removed."""
    parts = first.split(".")
    for length in range(len(parts)):
        end = ".".join(parts[length:])
        for key in theirs:
            if key == end or key.endswith(f".{end}"):
                off = key.removesuffix(end).rstrip(".")
                yield tuple(parts[:length]), tuple(off.split(".")) if off else ()


def _behind(prefix: tuple[str, ...], names: Mapping[str, str]) -> dict[str, str]:
    """The names that begin with a prefix, with the prefix removed."""
    front = "".join(f"{part}." for part in prefix)
    return {name.removeprefix(front): key for name, key in names.items() if name.startswith(front)}


def _tensors(state: State) -> int:
    return sum(isinstance(value, Tensor) for value in state.values())


def _alike(theirs: object, ours: object) -> bool:
    if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor):
        return isinstance(ours, Tensor) == isinstance(theirs, Tensor)
    return is_lazy(ours) or theirs.shape == ours.shape


def _same(one: State, other: State) -> bool:
    tensors = [(value, other.get(key)) for key, value in one.items() if isinstance(value, Tensor)]
    return all(
        isinstance(second, Tensor) and first.shape == second.shape and torch.equal(first, second)
        for first, second in tensors
    )


def _told(match: _Match, others: list[_Match], file: str) -> str:
    done = []
    if match.place:
        done.append(f"taken from '{'.'.join(match.place)}'")
    if match.off and match.off != match.put:
        done.append(f"prefix '{'.'.join(match.off)}.' removed")
    if match.put and match.off != match.put:
        done.append(f"prefix '{'.'.join(match.put)}.' added")
    if match.wrapped:
        done.append("names of wrappers (module, _orig_mod) ignored")
    if match.kept:
        done.append(f"as built: {', '.join(match.kept[:3])}{', …' if len(match.kept) > 3 else ''}")
    if match.left_out:
        done.append(f"{match.left_out} other tensor{'s' * (match.left_out != 1)} left out")
    if others:
        done.append("not used, though they fit: " + ", ".join(f"'{other.label}'" for other in others))
    return f"weights '{file}': {'; '.join(done)}"
