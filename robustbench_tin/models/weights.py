"""Weights files: written for resuming, read from any source, never unpickled into code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from robustbench_tin.atomic import replacing
from robustbench_tin.errors import WeightsError
from robustbench_tin.models.classifier import Classifier
from robustbench_tin.models.network import head_keys, head_names
from robustbench_tin.models.one_pixel_head import head_kernels, with_head_of
from robustbench_tin.models.published_head import rows_note, with_rows
from robustbench_tin.models.weights_file import WeightsFile, read_weights_file


def save_weights(classifier: Classifier, path: Path) -> None:
    """Write the network's weights as safetensors, beside ``path`` first, then renamed to it.

    The keys are the network's own, in timm's naming; the metadata name the backbone and its sizes.

    Raises:
        RunError: if the disk is full or the path cannot be written.
    """
    # Copies, because safetensors accepts neither shared storage nor channels-last strides.
    state = {
        key: value.detach().to("cpu", copy=True).contiguous()
        for key, value in classifier.network.state_dict().items()
    }
    metadata = {
        "backbone": classifier.backbone,
        "num_classes": str(classifier.num_classes),
        "image_size": str(classifier.image_size),
        "resize_to": str(classifier.input_size),
    }
    with replacing(path) as beside:
        try:
            save_file(state, beside, metadata)
            _sort_metadata(beside)
        except SafetensorError as error:  # for example a full disk
            raise OSError(str(error)) from error


def _sort_metadata(file: Path) -> None:
    """Order the metadata of a safetensors file by name: the package writes them in a random order.

    The same training then ends with the same file, and its digest tells no difference that there is not.
    """
    with file.open("r+b") as content:
        size = int.from_bytes(content.read(8), "little")
        header = json.loads(content.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            content.seek(8)
            content.write(text.ljust(size))


def load_weights(classifier: Classifier, path: Path) -> None:
    """Load a file that :func:`save_weights` wrote into a classifier, head included.

    Raises:
        WeightsError: if the file cannot be read, or its keys or shapes do not fit the classifier.
    """
    file = read_weights_file(Path(path))
    fitted = file.fitted(classifier.network, any_shape=head_kernels(classifier.network))
    state = with_head_of(file.state if fitted is None else fitted.state, classifier.network)
    _require_fit(classifier.network, file, state, classifier.backbone)
    classifier.network.load_state_dict(dict(state), strict=False)


def start_from(network: nn.Module, backbone: str, path: Path, rows: Sequence[int] = ()) -> tuple[str, ...]:
    """Load a file into a new network; a head with another number of classes stays new.

    Args:
        network: the network, with its new head.
        backbone: its name.
        path: the file.
        rows: rows of the file's head, one for each class, that the head starts from; empty for none.

    Returns:
        Notes for the user: the place of the weights in the file, and a replaced head.

    Raises:
        WeightsError: if the file cannot be read, or belongs to another architecture.
    """
    file = read_weights_file(path)
    own = network.state_dict()
    heads = head_keys(network)
    fitted = file.fitted(network, any_shape=[*heads, *head_kernels(network)])
    state = _translate(network, file.state) if fitted is None else fitted.state
    state = with_head_of(state, network)
    notes = () if fitted is None else fitted.notes
    if rows:
        state = with_rows(state, heads, rows, f"'{path.name}'")
        notes = (*notes, rows_note(backbone, rows))
    other = [key for key in heads if key in state and key in own and len(state[key]) != len(own[key])]
    if other:
        notes = (
            *notes,
            f"{backbone}: the head in '{path.name}' has {len(state[other[0]])} classes;"
            f" a new one for {len(own[other[0]])} starts from scratch",
        )
        state = {**state, **{key: own[key] for key in other}}
    _require_fit(network, file, state, backbone)
    network.load_state_dict(dict(state), strict=False)
    return notes


def _translate(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state with the network's keys and shapes, if timm can translate it (position embeddings)."""
    # Inception's second head serves only its original training, but its published files contain it.
    state = {key: value for key, value in state.items() if not key.startswith("AuxLogits.")}
    own = network.state_dict()
    heads = head_names(network)
    if all(key.startswith(heads) for key in _mismatches(own, state)):
        return state
    translate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return state
    try:
        translated: Mapping[str, Tensor] = translate(dict(state), network)
    except (LookupError, AttributeError, RuntimeError, TypeError, ValueError, AssertionError):
        return state  # a foreign file: the mismatch is then reported
    return translated


def _require_fit(network: nn.Module, file: WeightsFile, state: Mapping[str, Tensor], backbone: str) -> None:
    own = network.state_dict()
    wrong = list(_mismatches(own, state))
    if not wrong:
        return
    first = wrong[0]
    if first not in state:
        how = "is missing"
    elif first not in own:
        how = "is unknown"
    else:
        how = f"is {tuple(state[first].shape)} instead of {tuple(own[first].shape)}"
    written_by = file.metadata.get("backbone")
    origin = f" (written for '{written_by}')" if written_by else ""
    raise WeightsError(
        f"weights '{file.path}'{origin} do not fit backbone '{backbone}': {len(wrong)} keys differ,"
        f" first '{first}' {how}; expected a file of this backbone with timm's key names"
    )


def _mismatches(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterable[str]:
    """Keys that are missing, unknown or of another shape, in the network's order."""
    for key, value in own.items():
        # Batch counters matter only to a cumulative average, and converted files often lack them.
        optional = key.endswith("num_batches_tracked")
        if (key not in state and not optional) or (key in state and state[key].shape != value.shape):
            yield key
    yield from (key for key in state if key not in own)
