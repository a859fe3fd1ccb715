"""Several processes, on several machines, in one output directory: who does which chunk, and who has died.

A claim is a file that appears whole or not at all, by `link`, which is atomic on NFS as well, where locks and O_APPEND
are not to be trusted. Its holder writes to it again every few seconds. Whoever sees it unchanged for a while by a clock
of its own (the clocks of two machines differ) takes the chunk over with a claim of the next generation; there is
nothing that two could remove at once. A process that was only suspended goes on meanwhile: both write the same bytes,
each file by one rename.
"""

import errno
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from ldr2hdr_cli.convert.chunks import Chunk
from ldr2hdr_cli.convert.events import Elsewhere, Failed, FileEvent
from ldr2hdr_cli.convert.manifest import Settings
from model.atomic import PREFIX, SUFFIX, sweep, write_atomically
from model.errors import Ldr2hdrError

CLAIMS = ".ldr2hdr-claims"
BEAT = 10.0  # seconds between two signs of life
PATIENCE = 60.0  # seconds without one; more than NFS keeps what it knows of a file
_POLL = 1.0  # seconds between two looks at chunks that others hold
_LEFT_OVER = 600.0  # seconds: a file that was half-written so long ago is not being written by another process
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
_DONE, _RUN = ".done", "run."


@dataclass(frozen=True)
class Holder:
    """A process, for the others. home: of its process number: machine, boot and container."""

    host: str
    home: str
    pid: int
    began: float  # seconds since 1970
    token: str  # of this run in the process

    @classmethod
    def me(cls) -> "Holder":
        import psutil

        return cls(socket.gethostname(), _home(), os.getpid(), psutil.Process().create_time(), uuid.uuid4().hex)

    @property
    def name(self) -> str:
        return f"process {self.pid} on {self.host}"

    def has_died(self) -> bool:
        """Known for certain, because it ran here."""
        import psutil

        if self.home != _home():
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.began) > 1
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


@cache
def _home() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 (it is no path)
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():x}"


@dataclass
class _Watched:
    """A claim of another process: what it held when it was last seen to change, and when that was."""

    data: bytes
    since: float


@dataclass
class Claims:
    """The chunks that this process holds. `share`, `finish` and the signs of life come from three threads.

    settings: of the job: one with others is refused while this one is at work in the directory. stop: ends waiting.
    say: told whom this process waits for. Raises Ldr2hdrError where the directory cannot be written, or is in use.
    """

    out: Path
    settings: Settings
    stop: threading.Event = field(default_factory=threading.Event)
    say: Callable[[str], None] = lambda _text: None
    beat: float = BEAT
    patience: float = PATIENCE
    me: Holder = field(default_factory=Holder.me)
    _held: dict[str, tuple[Chunk, Path]] = field(default_factory=dict)
    _watched: dict[Path, _Watched] = field(default_factory=dict)
    _swept: set[Path] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)
    _began: float = 0.0  # by the clock of the file system
    _beats: int = 0
    _was_alone: bool = True
    _alive: threading.Thread = field(init=False)

    def __enter__(self) -> "Claims":
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._place(self.sign)
            self._began = self.sign.stat().st_mtime
            others = [other for path in self._folder.glob(_RUN + "*") if (other := self._other(path))]
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            with suppress(OSError):
                self.sign.unlink()
            raise Ldr2hdrError(
                f"{self.out} cannot be written ({reason}): make space, allow writing, or choose another -o."
            ) from None
        self._was_alone = not others
        for holder, settings in others:
            is_me = (holder.home, holder.pid, holder.began) == (self.me.home, self.me.pid, self.me.began)
            if is_me or settings.digest() != self.settings.digest():  # waiting for itself, it would wait for ever
                self.sign.unlink(missing_ok=True)
                changed = self.settings.changed_from(settings.values)
                how = "" if is_me else f", which converts with other settings ({changed or 'of another version'})"
                raise Ldr2hdrError(f"{self.out} is in use by {holder.name}{how}: wait for it, or choose another -o.")
        self._alive = threading.Thread(target=self._live, name="claims", daemon=True)
        self._alive.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closed.set()
        self._alive.join()  # or it might make its sign again
        with self._lock:
            for _, path in self._held.values():
                with suppress(OSError):
                    path.unlink()
            self._held.clear()
        with suppress(OSError):
            self.sign.unlink()
            if not any(self._folder.glob(_RUN + "*")):
                for place in self._folder.iterdir():  # nobody is at this job
                    shutil.rmtree(place, ignore_errors=True)
                self._folder.rmdir()

    def share(self, chunks: Iterable[Chunk | FileEvent], taken: Callable[[], None]) -> Iterator[Chunk | FileEvent]:
        """Those that this process does, each held from now on until `finish`; what others have made, as events.

        Where others hold all that is left, it waits, so that a chunk whose holder dies is done here. taken: called with
        each chunk that others may have worked on before. Ends after a Failed that ends the run.
        """
        for found in self._shared(chunks, taken):
            yield found
            if isinstance(found, Failed) and found.ends_run:
                return

    def _shared(self, chunks: Iterable[Chunk | FileEvent], taken: Callable[[], None]) -> Iterator[Chunk | FileEvent]:
        busy: deque[Chunk] = deque()
        for chunk in chunks:
            if self.stop.is_set():
                return
            found = self._try(chunk, taken) if isinstance(chunk, Chunk) else [chunk]
            if found is None:
                assert isinstance(chunk, Chunk)
                busy.append(chunk)
            else:
                yield from found
        told: set[str] = set()
        while busy and not self.stop.is_set():
            for _ in range(len(busy)):
                chunk = busy.popleft()
                found = self._try(chunk, taken)
                if found is None:
                    busy.append(chunk)
                    self._tell(chunk, told)
                else:
                    yield from found
                if self.stop.is_set():
                    return
            if busy:
                self.stop.wait(_POLL)

    def finish(self, chunk: Chunk, made: int, failures: Iterable[Failed]) -> None:
        """Everything of a chunk is recorded: another process passes it over. made: files, finished before or now."""
        with self._lock:
            held = self._held.pop(chunk.key, None)
        if held is None:
            return
        told = [[chunk.items.index(one.item), one.frame, one.message] for one in failures if one.item in chunk.items]
        record = {"by": self.me.name, "made": made, "failures": told[:1000]}
        with suppress(OSError, Ldr2hdrError):  # then others look at every file of it
            write_atomically(self._of(chunk).with_suffix(_DONE), json.dumps(record).encode())
        with suppress(OSError):
            held[1].unlink()

    def is_alone(self) -> bool:
        """Whether no other process is at this job."""
        return all(path == self.sign for path in self._folder.glob(_RUN + "*"))

    @property
    def _folder(self) -> Path:
        return self.out / CLAIMS

    def _of(self, chunk: Chunk) -> Path:
        """Without its suffix; in one of 256 directories, since a job may have a hundred thousand chunks."""
        return self._folder / chunk.key[:2] / chunk.key

    @property
    def sign(self) -> Path:
        """A file that is there as long as this process is."""
        return self._folder / (_RUN + self.me.token)

    def _try(self, chunk: Chunk, taken: Callable[[], None]) -> list[Chunk | FileEvent] | None:
        """The chunk, if it is ours now; events, if others have finished it; None while another holds it."""
        if record := self._finished(chunk):
            return record
        generations = self._generations(chunk)
        for path in generations[-1:]:
            if self._is_alive(path):
                return None
        generation = int(generations[-1].suffix[1:]) + 1 if generations else 1
        path = self._of(chunk).with_suffix(f".{generation}")
        try:
            if not self._place(path):
                return None
        except OSError as error:
            reason = f"{self.out} cannot be written ({error.strerror}): make space or allow writing."
            return [Failed(chunk.items[0], reason, ends_run=True)]
        for old in generations:
            with suppress(OSError):
                old.unlink()
        if record := self._finished(chunk):  # between the two looks
            with suppress(OSError):
                path.unlink()
            return record
        with self._lock:
            self._held[chunk.key] = chunk, path
        for folder in {item.folder for item in chunk.items} - self._swept:
            self._swept.add(folder)
            sweep(folder, before=self._began - (0 if self._was_alone else _LEFT_OVER))
        taken()
        return [chunk]

    def _generations(self, chunk: Chunk) -> list[Path]:
        place = self._of(chunk)
        return sorted(
            (path for path in place.parent.glob(place.name + ".*") if path.suffix[1:].isdigit()),
            key=lambda path: int(path.suffix[1:]),
        )

    def _finished(self, chunk: Chunk) -> list[Chunk | FileEvent] | None:
        """What another process made of a chunk since this one began; what was made earlier is looked at again."""
        path = self._of(chunk).with_suffix(_DONE)
        try:
            if path.stat().st_mtime < self._began:
                return None
            record = json.loads(path.read_bytes())
            by, items = record["by"], chunk.items
            failures = [Failed(items[index], message, frame) for index, frame, message in record["failures"]]
            if len(items) == 1:
                return [Elsewhere(items[0], record["made"], by), *failures]
            failed = {failure.item for failure in failures}
            return [*(Elsewhere(item, 1, by) for item in items if item not in failed), *failures]
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None

    def _place(self, path: Path) -> bool:
        """Create a file of ours under a name that nobody has. Raises OSError."""
        for _ in range(2):
            with suppress(FileNotFoundError):  # whoever leaves last removes the folders
                return self._link(path)
        return self._link(path)

    def _link(self, path: Path) -> bool:
        for folder in dict.fromkeys((self._folder, path.parent)):  # not the output directory, if that is gone
            folder.mkdir(exist_ok=True)
        temporary = path.with_name(f"{PREFIX}{uuid.uuid4().hex}{SUFFIX}")
        try:
            temporary.write_bytes(self._sign())
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            # The reply of a server may be lost when the link was made.
            if temporary.exists() and temporary.stat().st_nlink == 2:
                return True
            if error.errno not in _NO_LINKS:
                raise
            return self._create(path)
        finally:
            with suppress(OSError):
                temporary.unlink()
        return True

    def _create(self, path: Path) -> bool:
        """For file systems without links."""
        try:
            with path.open("xb") as file:
                file.write(self._sign())
        except FileExistsError:
            return False
        return True

    def _sign(self) -> bytes:
        return json.dumps({**self.me.__dict__, "settings": dict(self.settings.values), "beat": self._beats}).encode()

    def _read(self, path: Path) -> tuple[bytes, Holder | None, Settings]:
        try:
            data = path.read_bytes()
        except OSError:
            return b"", None, Settings()
        try:
            found: dict[str, Any] = json.loads(data)
            settings = Settings(dict(found.pop("settings")))
            found.pop("beat")
            return data, Holder(**found), settings
        except (ValueError, KeyError, TypeError):  # it is being written
            return data, None, Settings()

    def _is_alive(self, path: Path) -> bool:
        data, holder, _ = self._read(path)
        if not data and not path.exists():
            return False
        if holder is not None and holder.has_died():
            return False
        now = time.monotonic()
        seen = self._watched.get(path)
        if seen is None or seen.data != data:
            self._watched[path] = _Watched(data, now)
            return True
        return now - seen.since < self.patience

    def _other(self, path: Path) -> tuple[Holder, Settings] | None:
        """Who runs beside this process, and its job; None for one that has died, whose sign is removed."""
        if path == self.sign:
            return None
        _, holder, settings = self._read(path)
        if holder is None:
            return None
        # It may have died elsewhere, long ago by the clock of the file system, which both signs are of.
        try:
            is_old = self._began - path.stat().st_mtime > self.patience
        except FileNotFoundError:  # it has just ended
            return None
        if holder.has_died() or is_old:
            with suppress(OSError):
                path.unlink()
            return None
        return holder, settings

    def _live(self) -> None:
        """Signs of life, until the end."""
        while not self._closed.wait(self.beat):
            self._beats += 1
            with self._lock:
                paths = [self.sign, *(path for _, path in self._held.values())]
            for path in paths:
                if self._closed.is_set():
                    return
                try:
                    with path.open("r+b") as file:  # not made again, where another process has taken it over
                        file.write(self._sign())
                        file.truncate()
                except FileNotFoundError:
                    if path == self.sign:  # whoever tidied up did not see it
                        with suppress(OSError):
                            self._place(path)
                except OSError:
                    continue

    def _tell(self, chunk: Chunk, told: set[str]) -> None:
        for path in self._generations(chunk)[-1:]:
            _, holder, _ = self._read(path)
            if holder is not None and holder.token not in told:
                told.add(holder.token)
                self.say(f"Waiting for {holder.name}, which converts {chunk.name}; if it dies, that is done here.")
