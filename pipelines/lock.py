"""One launcher at a time on an output: a lock that names its holder, shows that it lives, and does not outlive it.

A local lock is created where none is (O_EXCL), and its time is renewed every second. On one machine the holder's
process tells whether it lives; from another machine only the heartbeat does. In S3 it is created, taken over and
renewed by conditional writes. Not every store has those: so whoever took a lock there waits, and reads back who wrote
last. Whoever is overtaken in spite of all that finds the other's name at its next heartbeat, and stops.
"""

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

from mmc4_builder import storage
from pipelines.holder import Holder, this_launcher, wait_for_workers

NAME = "build.lock"
BEAT_SECONDS = {True: 1.0, False: 20.0}  # by whether it is local
STALE_SECONDS = {True: 60.0, False: 300.0}  # without a heartbeat, from another machine
SETTLE_SECONDS = {True: 0.5, False: 3.0}  # until what somebody else writes at the same time is visible
EMPTY_SECONDS = 2.0  # for which a lock may be created and not yet written
ORPHAN_SECONDS = 30.0  # for which workers of a killed launcher are waited for; they end within a second or two


class LockError(Exception):
    """Another launcher works on the output, or has taken it over; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A lock as it lies there. One that nobody has written to yet, or that is no lock, has no holder."""

    holder: Holder | None
    beat: float  # seconds since the epoch
    version: str = ""  # of the object, where the store tells it

    @property
    def age(self) -> float:
        return max(0.0, time.time() - self.beat)


@dataclass(slots=True)
class Lock:
    """The lock of one output, for this process."""

    root: str
    mine: Holder
    taken_over: str = ""  # from whom and why, where a dead launcher's lay there
    _made: bool = False  # the folder; it goes again if nothing came to lie in it
    _released: threading.Event = field(default_factory=threading.Event)

    @property
    def path(self) -> str:
        return storage.join(self.root, NAME)

    @property
    def is_local(self) -> bool:
        return storage.is_local(self.root)

    def acquire(self) -> None:
        """Take the lock. LockError where another launcher has it, StorageError where nothing can be written."""
        if not self.is_local:
            self._acquire(self._put)
            return
        with _writable(self.path):
            self._made = not os.path.isdir(self.root)
            os.makedirs(self.root, exist_ok=True)
            with _one_at_a_time(self.root):
                self._acquire(self._create)

    def _acquire(self, create: Callable[[Seen | None], bool]) -> None:
        while True:
            self.taken_over = ""
            seen = look(self.path)
            if seen is not None and seen.holder == self.mine:
                break  # it was written, but the store's answer was lost, and to the same once more it said no
            if create(seen and self._take_over(seen)):
                break
        if self.taken_over or not self.is_local:
            time.sleep(SETTLE_SECONDS[self.is_local])
            if (wrong := self._lost(look(self.path))) is not None:
                raise LockError(wrong)

    def _create(self, dead: Seen | None) -> bool:
        if dead is not None:
            storage.remove(self.path)
        return _create(self.path, _to_json(self.mine))

    def _put(self, dead: Seen | None) -> bool:
        """In an object store: where no lock is, or in the place of the very one that was judged."""
        return storage.objects(self.path).put_if(self.path, _to_json(self.mine), dead.version if dead else None)

    def _take_over(self, seen: Seen) -> Seen:
        """A lock that may be replaced, as its launcher is dead; LockError for a living one's."""
        if seen.holder is None and seen.age <= EMPTY_SECONDS:
            time.sleep(EMPTY_SECONDS)
            seen = look(self.path) or seen
        why = judge(seen, self.mine, STALE_SECONDS[self.is_local])
        if why and seen.holder is not None:
            if seen.holder.is_here(self.mine):
                if left := wait_for_workers(seen.holder.pid, ORPHAN_SECONDS):
                    raise LockError(f"{self.root}: the launcher has died ({seen.holder}), its workers {left} still run")
            else:
                time.sleep(3 * BEAT_SECONDS[self.is_local])  # clocks may differ: what counts is that nothing changes
                why = why if look(self.path) == seen else None
        if why is None:
            raise LockError(refusal(self.root, seen, STALE_SECONDS[self.is_local]))
        self.taken_over = f"{seen.holder or self.path} ({why})"
        return seen

    def _lost(self, seen: Seen | None) -> str | None:
        """What is wrong where the lock is not ours any more."""
        if seen is None:
            return (
                f"{self.path} is gone: the output was deleted or unmounted while the build ran. Put it back, then "
                "run the same command again: what is still there is not done again"
            )
        if seen.holder is None or seen.holder.token != self.mine.token:
            return f"another launcher took over {self.root}: {seen.holder or 'unknown'}. This one stops"
        return None

    def beat(self) -> str | None:
        """Renew the lock's time; what is wrong where it is not ours any more."""
        seen = look(self.path)
        if (wrong := self._lost(seen)) is None:
            if self.is_local:
                os.utime(self.path)
            elif not self._put(seen):
                return self._lost(look(self.path))
        return wrong

    def keep(self, lost: Callable[[str], object]) -> None:
        """Beat until released. `lost` is called, once and in another thread, when the lock is not ours any more."""
        threading.Thread(target=self._keep, args=(lost,), name="heartbeat", daemon=True).start()

    def _keep(self, lost: Callable[[str], object]) -> None:
        renewed = time.monotonic()
        while not self._released.wait(BEAT_SECONDS[self.is_local]):
            try:
                wrong = self.beat()
                renewed = time.monotonic()
            except Exception as error:  # of any file system. It may pass, but not for so long that others take over
                too_long = time.monotonic() - renewed > STALE_SECONDS[self.is_local] / 2
                wrong = f"cannot renew {self.path}: {error}. Run the same command again" if too_long else None
            if wrong and not self._released.is_set():
                lost(wrong)
                return

    def release(self) -> None:
        """Let others in. A lock that is not ours any more stays."""
        self._released.set()
        seen = look(self.path)
        if seen is not None and seen.holder is not None and seen.holder.token == self.mine.token:
            storage.remove(self.path)
            if self._made:
                with contextlib.suppress(OSError):  # there is something in it
                    os.rmdir(self.root)


@contextlib.contextmanager
def held(root: str, command: str, lost: Callable[[str], object]) -> Iterator[Lock]:
    """The lock of an output, for as long as the block runs."""
    lock = Lock(root.rstrip("/"), this_launcher(command))
    lock.acquire()
    lock.keep(lost)
    try:
        yield lock
    finally:
        with contextlib.suppress(OSError, storage.StorageError):  # it has its message already; the next run takes over
            lock.release()


def look(path: str) -> Seen | None:
    """The lock, None where there is none."""
    beat, version = None, ""
    if storage.is_local(path):
        try:
            with open(path, "rb") as stream:
                content, beat = stream.read(), os.fstat(stream.fileno()).st_mtime
        except FileNotFoundError:
            return None
    else:
        if (found := storage.objects(path).look(path)) is None:
            return None
        content, version = found
    try:
        raw = json.loads(content)
        told = float(raw.pop("beat"))
        return Seen(Holder(**raw), told if beat is None else beat, version)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Seen(None, beat or 0.0, version)


def judge(seen: Seen, mine: Holder, stale: float) -> str | None:
    """Why a launcher's lock may be taken over; None where it may not."""
    if seen.holder is None:
        return "its lock was never written" if seen.age > EMPTY_SECONDS else None
    if seen.holder.is_here(mine):
        return None if seen.holder.runs() else "it has died"
    return f"it has given no sign of life for {seen.age:.0f} s" if seen.age > stale else None


def refusal(root: str, seen: Seen, stale: float) -> str:
    """Who has the output, and what to do about it."""
    return (
        f"{root} is being built by another launcher: {seen.holder or 'one that has just started'}. "
        f"Wait for it, stop it, or choose another --output (its last sign of life is {seen.age:.0f} s old; "
        f"a launcher on another machine is given up after {stale:.0f} s)"
    )


def _to_json(holder: Holder) -> bytes:
    return json.dumps({**asdict(holder), "beat": time.time()}, indent=1).encode() + b"\n"


def _create(path: str, content: bytes) -> bool:
    """Create the file; False where somebody else was first."""
    try:
        with open(path, "xb") as stream:
            stream.write(content)
    except FileExistsError:
        return False
    except OSError:
        with contextlib.suppress(OSError):  # a full disk leaves no lock that nobody holds
            os.remove(path)
        raise
    return True


@contextlib.contextmanager
def _one_at_a_time(folder: str) -> Iterator[None]:
    """Launchers of one machine judge a dead lock one after another, so that only one of them takes it over."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot; reading back must do there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writable(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage.StorageError(
            f"cannot write {error.filename or path}: {error.strerror or error}. Make room, fix the permission, or "
            "choose another --output; then run the same command again"
        ) from error
