"""timm's published weights: from the local cache, or fetched, or one clear line why not."""

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

_PATIENCE = 5.0  # seconds that a host may take to answer at all


def create_pretrained(
    backbone: Backbone, num_classes: int, size: int, rows: Sequence[int] = ()
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with timm's published weights, its head fresh if the class count is another.

    Args:
        backbone: which.
        num_classes: of the head.
        size: height and width in pixels of what the network sees.
        rows: of the published head, one for each class, that the head starts from; empty: none.

    Returns:
        The network, and lines worth showing.

    Raises:
        WeightsError: where there are none, or they cannot be fetched; quick when there is no network.
    """
    published = timm.models.get_pretrained_cfg(backbone.timm_name)
    if published is None or not published.has_weights:
        raise failure(backbone.name, "timm publishes none")
    overlay = _locate(backbone, published)
    classes = published.num_classes if rows else num_classes
    try:
        with quiet():
            network = create_network(backbone, classes, size, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # whatever the download stack raises means the same here
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
    """What timm must be told to find the weights: nothing, or the cached file.

    Left to itself, the hub's client asks the host even for what is cached, and an unreachable host
    costs it a minute of retries; so both are settled here first.
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
        raise failure(backbone.name, "HF_HUB_OFFLINE is set and they are not in the cache")
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
    """Refuse a host that does not answer within seconds.

    Raises:
        WeightsError: naming the network and the host.
    """
    problem = ["no answer"]

    def ask() -> None:
        try:
            requests.head(url, timeout=_PATIENCE).close()
            problem.clear()
        except requests.RequestException as error:
            problem[:] = [type(error).__name__]

    # A name that does not resolve can hang past every timeout, hence a thread that may be left behind.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if problem:
        raise failure(name, f"{url} cannot be reached ({problem[0]})", **advice)


def failure(name: str, reason: str, advice: str = "give a file with --weights FILE") -> WeightsError:
    """The error for published weights that cannot be loaded."""
    reason = " ".join(reason.split())[:200]
    return WeightsError(f"no pretrained weights for backbone '{name}': {reason}; {advice}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the hub's retries out of the terminal; what fails is raised and told once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
