"""The queue: jobs on disk, a thread a device that converts them one after the other, and what makes room for new ones.

DATA/jobs/ID/ holds job.json, events.jsonl, the uploads in `in` and the results in `out`; DATA/tmp what is about to come
or go. A job that a server left unfinished is converted by the next one, which finds what is finished as `convert` does.

Each device takes a job of its own, so that photographs need not wait behind a clip of an hour, and one network a device
is all the memory there is need for; the other way, every job on all devices, would be faster for a lone job only.
"""

import json
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from ldr2hdr_cli.convert.display import as_json
from ldr2hdr_cli.convert.events import Done, Event, Failed, Message, Skipped, Started, unforeseen
from ldr2hdr_cli.convert.manifest import MANIFEST
from ldr2hdr_cli.convert.network import kept, reconstructors
from ldr2hdr_cli.convert.run import convert
from ldr2hdr_cli.serve.asked import Refused, options_of, planned
from ldr2hdr_cli.serve.options import ServeOptions
from ldr2hdr_cli.terminal import one_line
from model.atomic import make_folder, write_atomically
from model.device import devices
from model.errors import Ldr2hdrError

CHECKED_EVERY = 5.0  # seconds between two looks at what is too old or too large

NO_RESULTS = (".", MANIFEST)
"""How the names of a job's files begin that are not for clients."""

State = Literal["queued", "running", "done", "failed"]
_SHOWN = ("id", "inputs", "options", "created", "state", "message", "finished", "total", "bytes")


@dataclass
class Job:
    """What was asked for and what became of it.

    inputs: names in `in` where they were uploaded, else absolute paths. options: as the client gave them. total: of the
    inputs, once they are counted. counts: of its events, by their kind. bytes: on the disk.
    """

    folder: Path
    id: str
    inputs: list[str]
    uploaded: bool
    options: dict[str, Any]
    created: float = field(default_factory=time.time)
    state: State = "queued"
    message: str = ""
    finished: float | None = None
    total: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    is_removed: bool = False
    is_too_large: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def words(self) -> list[str]:
        """Its inputs as `convert` takes them."""
        return [str(self.folder / "in" / name) for name in self.inputs] if self.uploaded else self.inputs

    def save(self) -> None:
        stored = {**self.described(), "uploaded": self.uploaded, "is_removed": self.is_removed}
        write_atomically(self.folder / "job.json", json.dumps(stored).encode())

    def described(self) -> dict[str, Any]:
        """For clients."""
        return {**{name: getattr(self, name) for name in _SHOWN}, "counts": dict(self.counts)}

    def events(self, since: int, most: int) -> list[dict[str, Any]]:
        """So many of those that were told, from the one with that number on."""
        try:
            with (self.folder / "events.jsonl").open(encoding="utf-8") as file:
                return [json.loads(line) for line in islice(file, since, since + most) if line.endswith("\n")]
        except OSError:
            return []

    def results(self) -> list[Path]:
        """Every file in `out` that a client may have, as paths below it."""
        found = []
        for parent, folders, names in os.walk(self.out):
            folders[:] = sorted(name for name in folders if not name.startswith(NO_RESULTS))
            found += [Path(parent, name) for name in sorted(names) if not name.startswith(NO_RESULTS)]
        return [path.relative_to(self.out) for path in found]


class Jobs:
    """All jobs of a data folder, which no other server may have open. Raises Ldr2hdrError."""

    def __init__(self, data: Path, options: ServeOptions) -> None:
        self.options = options
        self._jobs, self._temporary = data / "jobs", data / "tmp"
        for folder in (data, self._jobs, self._temporary):
            make_folder(folder)
        data.chmod(0o700)
        self._lock = FileLock(data / ".lock", timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise Ldr2hdrError(f"{data} is in use by another server: end it, or choose another --data.") from None
        for left in self._temporary.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        self._changed = threading.Condition()
        self._is_ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._known = {job.id: job for job in sorted(self._stored(), key=lambda job: job.created)}

    def _stored(self) -> Iterator[Job]:
        for folder in self._jobs.iterdir():
            try:
                job = Job(folder, **json.loads((folder / "job.json").read_bytes()))
            except (OSError, ValueError, TypeError) as error:
                _say(f"{folder} is passed over: its job.json cannot be read ({error}).")
                continue
            if job.is_removed:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            if job.state == "running":
                job.state = "queued"
            job.bytes = _size(folder)
            yield job

    def start(self) -> None:
        """A worker for each device, with its network loaded. Raises Ldr2hdrError where one cannot be used."""
        ready = []
        for device in devices(self.options.device):
            loaded: Future[None] = Future()
            ready.append(loaded)
            self._threads.append(threading.Thread(target=self._work, args=(device, loaded), name=f"jobs on {device}"))
        self._threads.append(threading.Thread(target=self._tidy, name="tidy"))
        for thread in self._threads:
            thread.start()
        try:
            for loaded in ready:
                loaded.result()
        except Ldr2hdrError:
            self.end()
            raise

    def end(self) -> None:
        """What is in hand is finished; what is left is for the next server."""
        self._is_ending.set()
        with self._changed:
            for job in self._known.values():
                job.stop.set()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._lock.release()

    @property
    def is_well(self) -> bool:
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def all(self) -> list[Job]:
        """The newest first."""
        with self._changed:
            return [job for job in self._known.values() if not job.is_removed][::-1]

    def get(self, id: str) -> Job:
        job = self._known.get(id)
        if job is None or job.is_removed:
            raise Refused(404, "There is no such job: it was deleted, or kept long enough.")
        return job

    def refuse_more(self) -> None:
        """Raises Refused where no job can be taken now."""
        waiting = [job for job in self.all() if job.state == "queued"]
        if len(waiting) >= self.options.max_queued:
            raise Refused(429, f"{len(waiting)} jobs are waiting, and no more may: try again later.")
        if self._is_ending.is_set():
            raise Refused(503, "The server is ending: try again later.")

    def add(self, inputs: list[str], options: dict[str, Any], fill: Callable[[Path], None] | None = None) -> Job:
        """A new job at the end of the queue. fill: puts the uploads, which are named `inputs`, into a folder.

        Raises Refused where the server's limits or roots do not allow it, or the options do not fit.
        """
        self.refuse_more()
        id = secrets.token_hex(8)
        place = self._temporary / id
        job = Job(place, id, inputs, fill is not None, options)
        try:
            (place / "in").mkdir(parents=True)
            if fill is not None:
                fill(place / "in")
            planned(job.words(), job.out, options_of(options, self.options), self.options, below=fill is None)
            job.bytes = _size(place)
            self._make_room(job.bytes)
            job.save()
            job.folder = self._jobs / id
            with self._changed:
                self.refuse_more()
                place.rename(job.folder)
                self._known[id] = job
                self._changed.notify()
        except Refused as error:
            raise Refused(error.status, _for_clients(job, str(error))) from None
        except (OSError, Ldr2hdrError) as error:
            raise Refused(507, f"The server cannot store the job ({_for_clients(job, str(error))}).") from None
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return job

    def remove(self, job: Job) -> bool:
        """Delete it with its results; one that runs is stopped first. Returns whether it is gone already."""
        with self._changed:
            job.is_removed = True
            if job.state == "running":
                with suppress(Ldr2hdrError):  # of a full disk: what is deleted makes room
                    job.save()
                job.stop.set()
                return False
            job.state = "failed"  # no worker takes it any more
        self._forget(job)
        return True

    def _forget(self, job: Job) -> None:
        place = self._temporary / job.id
        with self._changed:
            if self._known.pop(job.id, None) is not None:
                with suppress(OSError):
                    job.folder.rename(place)  # at once: what is half deleted must not be found by the next server
        shutil.rmtree(place, ignore_errors=True)

    def _work(self, device: str, loaded: "Future[None]") -> None:
        with kept():
            try:
                reconstructors(options_of({}, self.options, device))
                loaded.set_result(None)
            except BaseException as error:
                loaded.set_exception(error)
                return
            while (job := self._next()) is not None:
                self._convert(job, device)

    def _next(self) -> Job | None:
        with self._changed:
            while not self._is_ending.is_set():
                job = next((job for job in self._known.values() if job.state == "queued"), None)
                if job is not None:
                    job.state, job.counts, job.total = "running", {}, None
                    return job
                self._changed.wait()
        return None

    def _convert(self, job: Job, device: str) -> None:
        state: State = "failed"
        try:
            job.save()
            options = options_of(job.options, self.options, device)
            planned(job.words(), job.out, options, self.options, below=not job.uploaded)  # links may have changed
            with (
                (job.folder / "events.jsonl").open("w", encoding="utf-8") as told,
                closing(convert(job.words(), job.out, options, stop=job.stop)) as events,  # type: ignore[type-var]
            ):
                for event in events:
                    self._see(job, event, told)
            if job.counts.get("done") or job.counts.get("skipped"):
                state = "done"
            else:
                job.message = job.message or "None of its files could be converted: its events say why."
        except Ldr2hdrError as error:
            job.message = job.message or _for_clients(job, str(error))
        except Exception as error:
            job.message = f"It cannot be converted: {_for_clients(job, unforeseen(error))}"
        self._settle(job, state)

    def _see(self, job: Job, event: Event, told: Any) -> None:
        match event:
            case Started():
                job.total = event.total
                return
            case Message():
                shown = {"event": "message", "message": event.text}
            case Done() | Skipped():
                shown = as_json(event)
                shown["output"] = event.output.relative_to(job.out).as_posix()
            case Failed():
                shown = as_json(event)
                if event.ends_run:
                    job.message = _for_clients(job, event.message)
            case _:
                shown = as_json(event)
        if "message" in shown:
            shown["message"] = _for_clients(job, shown["message"])
        if "source" in shown:
            shown["source"] = _for_clients(job, shown["source"])
        told.write(json.dumps(shown) + "\n")
        told.flush()
        job.counts[shown["event"]] = job.counts.get(shown["event"], 0) + 1

    def _settle(self, job: Job, state: State) -> None:
        if job.is_removed or job.is_too_large:  # after a full disk or a lost GPU, what is finished stays
            shutil.rmtree(job.out, ignore_errors=True)
        size = _size(job.folder)
        with self._changed:
            is_left = self._is_ending.is_set() and job.stop.is_set() and not job.is_removed
            if not is_left and not job.is_removed:
                job.bytes, job.finished = size, time.time()
                job.state = "failed" if job.message else state
        if is_left:
            return  # its job.json says that it runs: the next server goes on with it
        if job.is_removed:
            self._forget(job)
            return
        with suppress(Ldr2hdrError):  # of a full disk: it is known while the server runs
            job.save()
        _say(f"job {job.id}: {job.state}, {job.counts.get('done', 0)} written, {job.counts.get('failed', 0)} failed")

    def _tidy(self) -> None:
        while not self._is_ending.wait(CHECKED_EVERY):
            self.tidy()

    def tidy(self) -> None:
        """Deletes what was kept long enough, ends what is too large, and makes room."""
        for job in self.all():
            if job.finished is not None and job.finished < time.time() - 3600 * self.options.keep:
                self.remove(job)
            elif job.state == "running":
                job.bytes = _size(job.folder)
                if job.bytes > self.options.kept_bytes and not job.stop.is_set():
                    job.message = f"It has more than the {self.options.keep_size} that all jobs may have: ask for less."
                    job.is_too_large = True
                    job.stop.set()
        with suppress(Refused):
            self._make_room(0)

    def _make_room(self, wanted: int) -> None:
        """Deletes the oldest finished jobs until so many bytes more are allowed. Raises Refused where it cannot."""
        jobs = self.all()
        over = sum(job.bytes for job in jobs) + wanted - self.options.kept_bytes
        for job in sorted((job for job in jobs if job.finished is not None), key=lambda job: job.finished or 0):
            if over <= 0:
                break
            self.remove(job)
            over -= job.bytes
        if over > 0:
            raise Refused(507, "The server has no room for it until other jobs are finished: try again later.")


def _size(folder: Path) -> int:
    """Bytes of all files in it; those that go meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(parent, name).lstat().st_size
    return total


def _for_clients(job: Job, text: str) -> str:
    """Without the folders that only the server knows."""
    for folder in (job.folder / "in", job.out, job.folder):
        text = text.replace(f"{folder}{os.sep}", "")
    return text.replace(str(job.out), "the job's folder")


def _say(text: str) -> None:
    sys.stderr.write(one_line(f"ldr2hdr serve: {text}") + "\n")
    sys.stderr.flush()
