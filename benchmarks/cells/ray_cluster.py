"""Ray for the executor: the connection, the resources of nodes, and a mailbox for progress."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from robustbench_tin.errors import FOREIGN, InvalidSettingError, RobustTinError, one_line

# Seconds that the last messages of a task get to arrive.
_ARRIVAL = 10.0


class RayError(RobustTinError):
    """Ray is missing, cannot be reached, or cannot run a task."""


@dataclass(frozen=True)
class Needs:
    """The resources that a task declares.

    Attributes:
        cpus: number of CPUs.
        gpus: number of GPUs; a fraction lets several tasks share one.
        memory: bytes.
    """

    cpus: int
    gpus: float
    memory: int

    def fitting(self, node: dict[str, float]) -> int:
        """Number of such tasks that a node with these resources holds at a time."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return min(int(node.get(name, 0) / value + 1e-9) for name, value in wanted.items() if value)


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Yield the module ``ray``, connected to a cluster while the block lasts.

    Args:
        address: of the cluster; None: the one that this process is connected to, that ``RAY_ADDRESS`` names,
            or that runs on this machine; else Ray is started here.

    Raises:
        RayError: if Ray is not installed or the cluster cannot be reached.
    """
    ray = _imported()
    if ray.is_initialized():
        yield ray
        return
    # Ray would tell its makers about each cluster that it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except FOREIGN as error:  # Ray raises ConnectionError, RuntimeError, ValueError and others
        where = f"a Ray cluster at '{address}'" if address else "Ray"
        raise RayError(f"cannot connect to {where}: {one_line(error)[:300]}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_installed() -> None:
    """Check that Ray is installed.

    Raises:
        RayError: names the package to install.
    """
    _imported()


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RayError(
            f"--executor ray needs the package ray ({one_line(error)}); install robustbench-tin[ray]"
        ) from None
    return ray


def nodes(ray: Any) -> list[dict[str, float]]:
    """The resources of each live node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def within(needs: Needs, of_nodes: list[dict[str, float]]) -> Needs:
    """These needs, with no more memory than the largest node has: such a cell is alone on its node."""
    largest = max((node.get("memory", 0) for node in of_nodes), default=0)
    return Needs(needs.cpus, needs.gpus, int(min(needs.memory, largest)) if largest else needs.memory)


def check_gpus(gpus: float) -> float:
    """A number of GPUs that Ray takes: a part of one, or whole ones.

    Raises:
        InvalidSettingError: for another.
    """
    if gpus > 1 and gpus != int(gpus):
        raise InvalidSettingError(f"gpus_per_cell got {gpus:g}; expected a part of 1, or a whole number")
    return gpus


class Mailbox:
    """An actor that keeps the messages of all tasks until the command takes them."""

    def __init__(self) -> None:
        self._letters: list[tuple[int, Any]] = []

    def put(self, task: int, message: Any) -> None:
        """Keep a message of a task."""
        self._letters.append((task, message))

    def take(self) -> list[tuple[int, Any]]:
        """All messages since the last call, with the numbers of their tasks."""
        letters, self._letters = self._letters, []
        return letters


def open_mailbox(ray: Any) -> Any:
    """A mailbox on the node of this process, which lives as long as the command does."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()


@dataclass
class Mail:
    """The way of a task's messages to the mailbox; nobody waits for one but the last.

    Attributes:
        mailbox: handle of the actor.
        task: number of the task.
    """

    mailbox: Any
    task: int

    def __post_init__(self) -> None:
        self._last: Any = None

    def send(self, message: Any) -> None:
        """Send a message."""
        self._last = self.mailbox.put.remote(self.task, message)

    def flush(self) -> None:
        """Wait until all messages are there; a mailbox that is gone keeps nobody waiting for long."""
        import ray

        with suppress(ray.exceptions.RayError):
            if self._last is not None:
                ray.get(self._last, timeout=_ARRIVAL)
