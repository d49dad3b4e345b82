"""timm's published weights: from the local cache, downloaded, or one clear error line."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import requests
import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import nn

from robustbench_tin.errors import WeightsError
from robustbench_tin.models.backbone import Backbone
from robustbench_tin.models.network import create_network, head_keys
from robustbench_tin.models.published_head import rows_note, with_rows

_PATIENCE = 5.0  # seconds that a host may take to respond


def create_pretrained(
    backbone: Backbone, num_classes: int, size: int, rows: Sequence[int] = ()
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with timm's published weights; its head is new if the number of classes differs.

    Args:
        backbone: the backbone.
        num_classes: number of classes of the head.
        size: height and width of the network's input in pixels.
        rows: rows of the published head, one for each class, that the head starts from; empty for none.

    Returns:
        The network, and notes for the user.

    Raises:
        WeightsError: if there are no weights, or they cannot be downloaded; quickly if there is no network.
    """
    published = timm.models.get_pretrained_cfg(backbone.timm_name)
    if published is None or not published.has_weights:
        raise failure(backbone.name, "timm publishes none")
    overlay = _locate(backbone, published)
    classes = published.num_classes if rows else num_classes
    try:
        with quiet():
            network = create_network(backbone, classes, size, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # any error of the download stack means the same here
        raise failure(backbone.name, f"{type(error).__name__}: {error}") from error
    if rows:
        state = with_rows(network.state_dict(), head_keys(network), rows, "the published weights")
        network = create_network(backbone, num_classes, size)
        network.load_state_dict(state)
        return network, (rows_note(backbone.name, rows),)
    if num_classes == published.num_classes:
        return network, ()
    return network, (
        f"{backbone.name}: the head of the published weights has {published.num_classes} classes;"
        f" a new one for {num_classes} starts from scratch",
    )


def _locate(backbone: Backbone, published: Any) -> dict[str, Any]:
    """Settings that let timm find the weights: none, or the cached file.

    Without them, the hub's client contacts the host even for cached files, and an unreachable host costs a
    minute of retries. Both cases are therefore decided here first.
    """
    if not published.hf_hub_id:
        cached_url = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
        if not cached_url.is_file():
            require_host(backbone.name, published.url)
        return {}
    cached = None if published.custom_load else _cached(published)
    if cached is not None:
        return {"file": cached}
    if constants.HF_HUB_OFFLINE:
        raise failure(backbone.name, "HF_HUB_OFFLINE is set, and they are not in the cache")
    require_host(backbone.name, constants.ENDPOINT)
    return {}


def _cached(published: Any) -> str | None:
    repo, _, revision = published.hf_hub_id.partition("@")
    named = (published.hf_hub_filename,) if published.hf_hub_filename else ()
    for filename in named or (constants.SAFETENSORS_SINGLE_FILE, constants.PYTORCH_WEIGHTS_NAME):
        path = try_to_load_from_cache(
            repo, filename, cache_dir=constants.HF_HUB_CACHE, revision=revision or None
        )
        if isinstance(path, str):
            return path
    return None


def require_host(name: str, url: str, **advice: str) -> None:
    """Refuse a host that does not respond within seconds.

    Raises:
        WeightsError: names the network and the host.
    """
    problem = ["no answer"]

    def ask() -> None:
        try:
            requests.head(url, timeout=_PATIENCE).close()
            problem.clear()
        except requests.RequestException as error:
            problem[:] = [type(error).__name__]

    # A name that does not resolve can outlast every timeout, hence a thread that may be left running.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if problem:
        raise failure(name, f"{url} cannot be reached ({problem[0]})", **advice)


def failure(name: str, reason: str, advice: str = "give a file with --weights FILE") -> WeightsError:
    """The error for published weights that cannot be loaded, with advice."""
    reason = " ".join(reason.split())[:200]
    return WeightsError(f"no pretrained weights for backbone '{name}': {reason}; {advice}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the hub's messages about retries; a failure is raised and reported once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
