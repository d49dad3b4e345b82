"""A run at an address: worked on in a copy on this machine; the store gets its files as they are done.

Records are sent after the files that they belong to, so that a reader never sees a record alone. While the
store refuses writes, the run continues on its copy. ``lock.json`` keeps other machines away: whoever works
renews it, and a lock that nobody renews for a while is taken over. A store gives no better lock: two machines
that begin within the same second may both believe that they hold it, until one of them renews it and stops.
"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from robustbench_tin.atomic import is_temporary, write_text
from robustbench_tin.benchmarks.runs.resumable_output import LOCK, is_locked
from robustbench_tin.benchmarks.runs.store import Store, address_of, digest_of, opened_store
from robustbench_tin.data.source import default_cache_dir
from robustbench_tin.errors import RunError
from robustbench_tin.progress import Reporter

# Seconds between two looks for new files, and after which a lock that nobody renewed is taken over.
INTERVAL, LEASE = 10.0, 60.0
_STORE_LOCK, _DIGESTS = "lock.json", "digests.json"
_LOCAL = frozenset({LOCK, "now.json", _STORE_LOCK, _DIGESTS})


def working_copy(address: str) -> Path:
    """The directory of this machine that the run at an address is worked on in."""
    name = hashlib.blake2b(address.encode(), digest_size=8).hexdigest()
    return default_cache_dir() / "remote" / name


def local_run(place: str | Path) -> Path:
    """A path that has the files of a run: of one at an address, the copy on this machine, brought up to date.

    Raises:
        RunError: if the store cannot be read.
    """
    address = address_of(place)
    if address is None:
        return Path(place)
    copy = working_copy(address)
    if not is_locked(copy):  # else a process of this machine works on it
        _Mirror(opened_store(address), copy).fetch()
    return copy


@contextmanager
def mirrored(place: str | Path, reporter: Reporter) -> Iterator[Path]:
    """A run's directory on this machine; of one at an address, its copy, which the store follows.

    Raises:
        RunError: if another machine works on the run, or the store refuses for long. Files are kept.
    """
    address = address_of(place)
    if address is None:
        yield Path(place)
        return
    mirror = _Mirror(opened_store(address), working_copy(address), reporter)
    mirror.lock()
    mirror.fetch()
    reporter.say(f"Run {address}: worked on in {mirror.copy}")
    with mirror.following():
        yield mirror.copy


@dataclass
class _Mirror:
    """A copy of a run and its store."""

    store: Store
    copy: Path
    reporter: Reporter = field(default_factory=Reporter)
    owner: str = field(default_factory=lambda: f"{platform.node()}-{secrets.token_hex(8)}")
    _known: dict[str, object] | None = None
    _versions: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    _renewals: int = 0
    _lost: bool = False
    _told: bool = False

    @contextmanager
    def following(self) -> Iterator[None]:
        """Send new files now and then while the block lasts, and all that is left after it."""
        ended = threading.Event()
        thread = threading.Thread(target=self._follow, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._finish()

    def _follow(self, ended: threading.Event) -> None:
        while not ended.wait(INTERVAL) and not self._lost:
            try:
                self._renew()
                if not self._lost:
                    self.send()
            except RunError as error:
                if not self._told:
                    self.reporter.warn(f"{error}; the run continues on its copy")
                self._told = True

    def _finish(self) -> None:
        if not self._lost:
            self._renew()
        if self._lost:
            raise RunError(
                f"another machine took over the run at '{self.store.address}'; the work done here since then"
                f" is in '{self.copy}'"
            )
        try:
            self.send()
            self.store.remove(_STORE_LOCK)
        except RunError as error:
            raise RunError(
                f"{error}; results are kept in '{self.copy}', and the same command sends them"
            ) from error

    def lock(self) -> None:
        """Take the store's lock, once nobody renews it.

        Raises:
            RunError: if another machine works on the run.
        """
        held = self._held()
        if held is not None:
            self.reporter.say(f"Waiting {LEASE:.0f} s: is another machine at work on {self.store.address}?")
            ends = time.monotonic() + LEASE
            while time.monotonic() < ends:
                time.sleep(min(1.0, LEASE / 10))
                now = self._held()
                if now is None:
                    break
                if now != held:
                    raise RunError(
                        f"another machine ({now.get('owner')}) is working on run '{self.store.address}';"
                        " wait for it or choose another --out"
                    )
        self._write_lock()

    def _renew(self) -> None:
        held = self._held()
        self._lost = held is not None and held.get("owner") != self.owner
        if not self._lost:
            self._write_lock()

    def _write_lock(self) -> None:
        self._renewals += 1
        known = {"owner": self.owner, "renewals": self._renewals}
        self.store.send(_STORE_LOCK, json.dumps(known).encode())

    def _held(self) -> dict[str, object] | None:
        return _parsed(self.store.fetch(_STORE_LOCK))

    def fetch(self) -> None:
        """Bring the copy up to date; unsent files of the copy stay, unless the store has another version.

        Raises:
            RunError: if the store cannot be read, or sends a damaged file.
        """
        known, sent = self._digests(), self._sent()
        for name in self.store.names():
            if _is_sent(name) and not self._is_current(name, known, sent):
                self._fetch(name, known, sent)
        self._write_sent(sent)

    def _is_current(self, name: str, known: dict[str, object], sent: dict[str, object]) -> bool:
        file = self.copy / name
        return file.is_file() and name in known and sent.get(name) == known[name]

    def _fetch(self, name: str, known: dict[str, object], sent: dict[str, object]) -> None:
        digest = self.store.fetch_into(name, self.copy / name)
        if digest and digest != known.get(name, digest):
            # Sent after the list of digests was read, or damaged: the list as it is now tells.
            known.clear()
            known.update(self._digests())
            digest = self.store.fetch_into(name, self.copy / name)
            if digest != known.get(name, digest):
                raise RunError(
                    f"'{self.store.address}/{name}' is damaged: its digest is not the one that was sent;"
                    " remove it, and the run's command makes it again"
                )
        sent[name] = digest

    def send(self) -> None:
        """Send the new files of the copy: first data, then the records that belong to them.

        Raises:
            RunError: if the store refuses.
        """
        if self._known is None:
            self._known = self._digests()
        known, sent = self._known, self._sent()
        new = self._new_files(known, sent)
        gone = set(sent) - set(self._names())  # dropped, to be made again
        self._announce([*new, *gone], known)
        for name, file in new.items():
            content = file.read_bytes()
            self.store.send(name, content)
            known[name] = sent[name] = digest_of(content)
        for name in gone:
            self.store.remove(name)
            sent.pop(name)
        if new or gone:
            self.store.send(_DIGESTS, json.dumps(known).encode())
            self._write_sent(sent)

    def _new_files(self, known: dict[str, object], sent: dict[str, object]) -> dict[str, Path]:
        """The files that the store lacks, in the order in which they are sent; each version is read once."""
        new = {}
        for name in self._names():
            status = (self.copy / name).stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            if self._versions.get(name) == version and name in known:
                continue
            digest = digest_of((self.copy / name).read_bytes())
            if known.get(name) == digest:
                self._versions[name], sent[name] = version, digest
            else:
                new[name] = self.copy / name
        return new

    def _announce(self, changing: list[str], known: dict[str, object]) -> None:
        """Take the digests and the records away of files that are about to change."""
        records = [record for name in changing for record in _records_of(name) if record in known]
        stale = [name for name in [*changing, *records] if known.pop(name, None) is not None]
        if stale:
            self.store.send(_DIGESTS, json.dumps(known).encode())
        for record in records:
            self.store.remove(record)

    def _names(self) -> list[str]:
        """The files to send; those that were there before a record was written come before it."""
        found = [
            file.relative_to(self.copy).as_posix()
            for file in self.copy.rglob("*")
            if file.is_file() and not is_temporary(file.name)
        ]
        return sorted(filter(_is_sent, found), key=lambda name: (_rank(name), name))

    def _digests(self) -> dict[str, object]:
        return _parsed(self.store.fetch(_DIGESTS)) or {}

    @property
    def _sent_file(self) -> Path:
        """The list of files that were sent, stored beside the copy."""
        return self.copy.with_suffix(".json")

    def _sent(self) -> dict[str, object]:
        # A copy that somebody removed says nothing of the store.
        if not self._names() or not self._sent_file.is_file():
            return {}
        return _parsed(self._sent_file.read_bytes()) or {}

    def _write_sent(self, sent: dict[str, object]) -> None:
        write_text(self._sent_file, json.dumps(sent))


def _is_sent(name: str) -> bool:
    """Whether a file belongs to the run and not to one machine."""
    return name.rpartition("/")[2] not in _LOCAL and not name.endswith(".tmp")


def _rank(name: str) -> int:
    """Order of sending: the plan, the data of records, training, records, tables."""
    if "/" not in name:
        return 0 if name in ("plan.json", "labels.json", "data.json") else 4
    if not name.endswith(".json"):
        return 1
    return 2 if name.endswith(("training.json", "search.json")) else 3


def _records_of(name: str) -> list[str]:
    """The record that is true of a file, if it is one with a record."""
    if name.endswith(".parquet"):
        return [name.removesuffix("parquet") + "json"]
    if name.endswith("/weights.safetensors"):
        return [name.removesuffix("weights.safetensors") + "training.json"]
    return []


def _parsed(content: bytes | None) -> dict[str, object] | None:
    try:
        found = json.loads(content or b"null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
