"""`convert --on ray`: this process plans, claims and shows; actors on the machines of a Ray cluster convert.

An actor holds a `Worker`. Its reports come as a stream, so that they are shown as they come. Whatever becomes of an
actor, its chunks go to another: frames that it recorded are finished, whoever looks.
"""

import logging
import math
import os
import pickle
import queue
import re
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ldr2hdr_cli.convert import job, run
from ldr2hdr_cli.convert.chunks import PICTURES, Chunk
from ldr2hdr_cli.convert.claims import Claims
from ldr2hdr_cli.convert.events import Event, Failed, FileEvent, Message, Note, Started
from ldr2hdr_cli.convert.manifest import Manifest, Settings, absolute
from ldr2hdr_cli.farm.board import Board, Finished
from ldr2hdr_cli.farm.worker import Broke, Ended, Hello, Order, Refused, Report, Wants, Worker
from ldr2hdr_cli.option_values import cores
from ldr2hdr_cli.option_values import farm as farm_address
from ldr2hdr_cli.options import ConvertOptions
from model import __version__
from model.atomic import make_folder, sweep
from model.errors import Ldr2hdrError

MOST_ACTORS = 1024
_CORES = 4  # of an actor without a GPU, at most
_CORES_BESIDE_GPU = 8  # for decoding and encoding, at most
_SPARE = 2  # actors that are asked for beyond what the cluster has room for, so that one that can grow does
_IDLE = 30.0  # seconds without work after which an actor is released, but for the last one that is idle
_GRACE = 60.0  # seconds that a slow actor has to finish what it has in hand, before its chunk is done elsewhere
_BAD_NODE = 3  # deaths without a file more
_PATIENCE = 15.0  # seconds without a machine until that is said
_OBJECTS = 100_000_000  # bytes of Ray's object store; nothing but reports goes through it
_LOOK = 5.0  # seconds between two looks at the cluster's machines
_TURN = 0.2  # seconds that a look at the actors takes at most
_RETOLD = 1000  # notes that are not told twice


def convert(
    inputs: run.Inputs, output: str | os.PathLike[str], options: ConvertOptions, stop: threading.Event
) -> Iterator[Event]:
    """As `run.convert`, on the cluster that `options.on` names. Raises Ldr2hdrError."""
    words = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    out, options = absolute(Path(output)), _seen_from_anywhere(options)
    items, selection = run.plan([absolute(Path(word)) for word in words], out, options)
    yield from run.shared_names(items)
    make_folder(out)
    Manifest.read(out).close()  # one of an earlier version is divided once, and not by every actor
    with _connected(farm_address(options.on)) as ray:
        room = _room(ray, options)
        order = _order(items, selection, out, options, room)
        most = MOST_ACTORS if order.clip else math.ceil(len(items) / PICTURES)
        farm = _Farm(ray, order, room, stop, max(1, most))
        yield from farm.events(items)


def _seen_from_anywhere(options: ConvertOptions) -> ConvertOptions:
    """With absolute paths, and what an actor needs to be told. Raises Ldr2hdrError."""
    if options.device not in ("auto", "cpu", "cuda"):
        raise Ldr2hdrError(
            f"--device {options.device} with --on ray, which gives every process one GPU: choose auto, cpu or cuda."
        )
    weights = None if options.weights is None else absolute(options.weights)
    ocio = str(absolute(Path(options.ocio))) if options.ocio and Path(options.ocio).is_file() else options.ocio
    return replace(options, weights=weights, ocio=ocio)


@dataclass(frozen=True)
class _Room:
    """What one actor takes. cpus: of the processor's cores."""

    gpus: int
    cpus: int

    def times(self, resources: Mapping[str, float]) -> int:
        """How many actors fit into a machine that has these."""
        fitting = int(resources.get("CPU", 0) // self.cpus)
        return min(fitting, int(resources.get("GPU", 0) // self.gpus)) if self.gpus else fitting

    @property
    def name(self) -> str:
        cores = "a core" if self.cpus == 1 else f"{self.cpus} cores"
        return f"a GPU and {cores}" if self.gpus else cores


def _room(ray: Any, options: ConvertOptions) -> _Room:
    """One GPU where there are any; else a few cores, not more than the smallest machine has."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if options.device == "cuda" or (options.device == "auto" and any(node.get("GPU", 0) >= 1 for node in nodes)):
        beside = [int(node.get("CPU", 0) // node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1]
        return _Room(1, max(1, min([*beside, _CORES_BESIDE_GPU])))
    return _Room(0, min([*(int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1), _CORES]))


def _order(
    items: Sequence[job.Item], selection: job.Selection, out: Path, options: ConvertOptions, room: _Room
) -> Order:
    clip = next((one for one in items if one.input.kind == "video" or (options.fps and one.input.sequence)), None)
    sizes: dict[job.Item, int] = {}
    for item in [*items[:1], *items[-1:], *([clip] if clip else [])]:
        with suppress(OSError):  # named when it is converted
            sizes[item] = item.input.path.stat().st_size
    encoders = str(max(2, room.cpus)) if options.encoders == "auto" else options.encoders
    told = replace(options, device="cuda" if room.gpus else "cpu", encoders=encoders, on=None)
    return Order(sizes, clip, selection, out, told, _weights(options), 0 if room.gpus else room.cpus)


def _weights(options: ConvertOptions) -> str:
    if options.method != "network":
        return ""
    from model.checkpoint import weights_sha256

    try:
        return weights_sha256(options.weights)
    except OSError as error:
        raise Ldr2hdrError(f"{options.weights} cannot be read ({error.strerror}): give a weights file.") from None


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """To the cluster at an address; without one to that which runs here, or else to one of this machine alone.

    Python code that is connected already stays so. Raises Ldr2hdrError.
    """
    ray = _ray()
    if ":" in address:
        _check_port(address)
    if ray.is_initialized():
        if ":" in address and address != ray.get_runtime_context().gcs_address:
            raise Ldr2hdrError(f"--on ray:{address}: this process is connected to another cluster: leave it first.")
        yield ray
        return
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with _handlers_kept():
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError as error:
            if address:
                raise _unreachable(address, error) from None
            _start_here(ray, quiet)
        except Exception as error:  # another version there, no token, an address that this machine is no part of
            raise _unreachable(address or "auto", error) from None
    try:
        yield ray
    finally:
        with _handlers_kept():
            ray.shutdown()


def _ray() -> Any:
    """Ray, told not to write between the lines of the display. Raises Ldr2hdrError."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what a later version does
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray._private import worker
    except ImportError:
        raise Ldr2hdrError("--on ray needs Ray, which is not installed: pip install 'ldr2hdr[farm]'.") from None
    # Of every actor that dies it prints a paragraph on stdout, whatever `log_to_driver` says, between lines of JSON.
    worker.print_to_stdstream = lambda *_args, **_more: None
    return ray


def _start_here(ray: Any, quiet: dict[str, Any]) -> None:
    try:
        ray.init(num_cpus=cores(), include_dashboard=False, object_store_memory=_OBJECTS, **quiet)
    except Exception as error:
        raise Ldr2hdrError(
            f"Ray cannot be started here ({_first_line(error)}): `ray start --head` may say more."
        ) from None


def _check_port(address: str) -> None:
    """Ray itself would try for minutes, and write of it on stderr."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> Ldr2hdrError:
    return Ldr2hdrError(
        f"--on ray:{address}: the cluster cannot be reached ({_first_line(error)}); this machine must be one of it, by "
        f"`ray start --address={address}`, with --num-cpus=0 if it is not to work."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray sets handlers of its own, under which SIGTERM would not let anybody finish anything."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _RayWorker(Worker):
    """A worker that knows where it is."""

    def hello(self, version: str, order: bytes) -> Hello:
        import ray

        return replace(super().hello(version, order), node=ray.get_runtime_context().get_node_id())


@dataclass(eq=False)
class _Actor:
    """hello: of one that is still awaited. stream: its reports, from then on. wants: a chunk."""

    handle: Any
    hello: Any
    stream: Any = None
    host: str = ""
    node: str = ""
    wants: bool = False
    idle_since: float = 0.0
    leaves_since: float | None = None  # it was asked to stop


class _Source:
    """The chunks that are held for this job, found by a thread: others may hold what is left, for hours."""

    def __init__(self, chunks: Iterable[Chunk | FileEvent], stop: threading.Event) -> None:
        self._chunks, self._stop = chunks, stop
        self._found: queue.Queue[Chunk | FileEvent | BaseException | None] = queue.Queue(2)
        self.is_over = False
        self._thread = threading.Thread(target=self._fill, name="chunks", daemon=True)
        self._thread.start()

    def take(self) -> Chunk | FileEvent | None:
        """The next, if it is there."""
        try:
            found = None if self.is_over else self._found.get_nowait()
        except queue.Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        self.is_over |= found is None
        return found

    def close(self) -> None:
        if not self.is_over:
            self._stop.set()
        self._thread.join()

    def _fill(self) -> None:
        try:
            for chunk in self._chunks:
                if not self._put(chunk):
                    return
        except BaseException as error:
            self._put(error)
        self._put(None)

    def _put(self, what: Chunk | FileEvent | BaseException | None) -> bool:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._found.put(what, timeout=0.2)
                return True
        return False


@dataclass(eq=False)
class _Farm:
    """The actors of a job, and what they have in hand."""

    ray: Any
    order: Order
    room: _Room
    stop: threading.Event
    most: int = MOST_ACTORS
    board: Board = field(default_factory=Board)
    _actors: list[_Actor] = field(default_factory=list)
    _settings: Settings | None = None
    _source: _Source | None = None
    _claims: Claims | None = None
    _messages: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    _said: dict[str, None] = field(default_factory=dict)
    _bad_nodes: dict[str, str] = field(default_factory=dict)  # by their ids: why nothing is sent there
    _deaths: dict[str, int] = field(default_factory=dict)  # in a row, by node
    _stillborn: int = 0  # actors in a row that did not come to say hello
    _lost: set[Path] = field(default_factory=set)  # folders in which an actor may have left something half-written
    _places: int = 0  # that the cluster has for actors
    _looked: float = -math.inf  # when that was

    def events(self, items: Sequence[job.Item]) -> Iterator[Event]:
        """All of the job, but what other processes do of it."""
        try:
            yield from self._assemble()
            if self._settings is None:
                return
            with Claims(self.order.out, self._settings, self.stop, self._messages.put) as self._claims:
                yield Started(len(items))
                chunks = run.chunks(items, self.order.selection, self.order.options)
                self._source = _Source(self._claims.share(chunks, lambda: None), self.stop)
                try:
                    yield from self._work()
                except GeneratorExit:  # the caller has closed the iterator
                    self.stop.set()
                    for _ in self._work():  # what is in hand is still recorded
                        pass
                    raise
                finally:
                    self._source.close()
                    self._dismiss()
                    if self._claims.is_alone():
                        for folder in self._lost:
                            sweep(folder)
        finally:
            self._dismiss()

    def _assemble(self) -> Iterator[Event]:
        """Waits for the first actor: what decides the bytes is known from it. Raises Ldr2hdrError."""
        tell_at: float | None = time.monotonic() + _PATIENCE
        while self._settings is None and not self.stop.is_set():
            self._ask()
            yield from self._hear()
            if tell_at is not None and time.monotonic() > tell_at:
                tell_at = None
                room = self.room.name
                yield Message(f"Waiting for Ray to start a process with {room}; `ray status` shows what is free.")

    def _work(self) -> Iterator[Event]:
        assert self._claims is not None
        while not self._is_over():
            for actor in [actor for actor in self._actors if actor.hello is None and actor.stream is None]:
                actor.stream = actor.handle.run.options(num_returns="streaming").remote(self._claims.sign)
            if self.stop.is_set():
                self._tell_to_stop()
            else:
                self._ask()
                yield from self._hand_out()
                self._move_slow()
                self._rest()
            yield from self._hear()
            while not self._messages.empty():
                yield Message(self._messages.get())

    def _is_over(self) -> bool:
        assert self._source is not None
        if self.stop.is_set():
            return not self._actors
        return self._source.is_over and not self.board.waiting and not self.board.busy

    @property
    def _there(self) -> list[_Actor]:
        """Those that have said hello, and are to stay."""
        return [actor for actor in self._actors if actor.stream is not None and actor.leaves_since is None]

    @property
    def _idle(self) -> list[_Actor]:
        return [actor for actor in self._there if actor.wants and not self.board.has(actor)]

    def _ask(self) -> None:
        """For as many actors as there is work for, and a few more than the cluster has room for: it may grow."""
        self._look()
        if self._bad_nodes and not self._places and not any(actor.stream for actor in self._actors):
            raise Ldr2hdrError(next(reversed(self._bad_nodes.values())))
        wanted = min(self.most, MOST_ACTORS, self._places + _SPARE)
        if self._source is not None and self._source.is_over:
            wanted = min(wanted, self.board.busy + len(self.board.waiting))
            pending = [actor for actor in self._actors if actor.stream is None]
            for actor in pending[: max(0, len(self._actors) - wanted)]:
                self._release(actor)
        if self._idle or self._stillborn >= _BAD_NODE:
            return
        while len(self._actors) < wanted:
            self._actors.append(self._begin())

    def _look(self) -> None:
        """At the cluster, now and then."""
        if time.monotonic() - self._looked > _LOOK:
            self._looked = time.monotonic()
            nodes = [node for node in self.ray.nodes() if node["Alive"] and node["NodeID"] not in self._bad_nodes]
            self._places = sum(self.room.times(node["Resources"]) for node in nodes)

    def _begin(self) -> _Actor:
        more: dict[str, Any] = {}
        if self._bad_nodes:
            more["label_selector"] = {"ray.io/node-id": f"!in({','.join(self._bad_nodes)})"}
        takes = {"num_cpus": self.room.cpus, "num_gpus": self.room.gpus}
        handle = self._kind.options(max_concurrency=4, **takes, **more).remote()  # it is given chunks while `run` runs
        return _Actor(handle, handle.hello.remote(__version__, pickle.dumps(self.order)))

    @cached_property
    def _kind(self) -> Any:
        return self.ray.remote(_RayWorker)

    def _hear(self) -> Iterator[Event]:
        """What the actors have to tell by now."""
        awaited = {actor.stream or actor.hello: actor for actor in self._actors if actor.stream or actor.hello}
        if not awaited:
            self.stop.wait(_TURN)
            return
        ready, _ = self.ray.wait(list(awaited), num_returns=max(1, len(awaited) // 8), timeout=_TURN)
        for one in ready:
            actor = awaited[one]
            if actor not in self._actors:
                continue
            try:
                if actor.stream is None:
                    yield from self._welcome(actor, self.ray.get(one))
                else:
                    for report in self.ray.get(next(one)):
                        yield from self._take(actor, report)
            except StopIteration:
                self._leave(actor)
            except self.ray.exceptions.RayError as error:
                yield from self._mourn(actor, _reason(self.ray, error))

    def _welcome(self, actor: _Actor, hello: Hello) -> Iterator[Event]:
        actor.host, actor.node, self._stillborn = hello.host, hello.node, 0
        if hello.settings is None:
            yield from self._refuse(actor, hello.refusal)
        elif self._settings is not None and hello.settings != self._settings:
            new, ours = hello.settings.values, self._settings.values
            name = next((name for name in ours if new.get(name) != ours[name]), "")
            why = f"its results would differ by --{name}, {new.get(name)} and not {ours[name]}: give that option."
            yield from self._refuse(actor, why)
        else:
            self._settings, actor.hello = hello.settings, None

    def _take(self, actor: _Actor, report: Report) -> Iterator[Event]:
        if actor not in self._actors:  # it was given up by a report before this one
            return
        match report:
            case Wants():
                actor.wants, actor.idle_since = True, time.monotonic()
            case Ended():
                self._deaths.pop(actor.node, None)
                if (finished := self.board.end(actor, report.key)) is not None:
                    self._finish(finished)
            case Refused():
                yield from self._refuse(actor, report.why)
            case Broke():
                yield from self._mourn(actor, report.why)
            case Failed(ends_run=True):
                self._bad_nodes[actor.node] = report.message
                yield from self._mourn(actor, report.message, ends_run=True)
            case Note() | Message():
                text = report.message if isinstance(report, Note) else report.text
                if text not in self._said:
                    yield report
                self._said[text] = None
                while len(self._said) > _RETOLD:
                    del self._said[next(iter(self._said))]
            case _:
                yield from self.board.see(actor, report)

    def _hand_out(self) -> Iterator[Event]:
        assert self._source is not None
        for actor in self._there:
            if not actor.wants or not self.board.may_have_more(actor):
                continue
            while (chunk := self.board.give(actor)) is None and (found := self._source.take()) is not None:
                if isinstance(found, Chunk):
                    self.board.add(found)
                else:
                    yield found
            if chunk is not None:
                actor.handle.give.remote(chunk)
                actor.wants = False

    def _move_slow(self) -> None:
        """What a slow actor has in hand goes to one that has nothing to do. One that does not even stop is ended."""
        assert self._source is not None
        now = time.monotonic()
        if self._idle and self._source.is_over and not self.board.waiting:
            slow = self.board.straggler()
            if slow is not None and slow.leaves_since is None:
                slow.leaves_since = now
                slow.handle.stop.remote()
        for actor in [actor for actor in self._actors if now - (actor.leaves_since or now) > _GRACE]:
            self._leave(actor)

    def _rest(self) -> None:
        """Others can use what has nothing to do here; one stays, for what may come back."""
        now = time.monotonic()
        for actor in self._idle[1:]:
            if now - actor.idle_since > _IDLE:
                self._release(actor)

    def _tell_to_stop(self) -> None:
        for actor in list(self._actors):
            if actor.stream is None:
                self._release(actor)
            elif actor.leaves_since is None:
                actor.leaves_since = time.monotonic()
                actor.handle.stop.remote()

    def _leave(self, actor: _Actor) -> None:
        """It has stopped, since it was told to: others do what is left."""
        self.board.give_back(actor)
        self._release(actor)

    def _refuse(self, actor: _Actor, why: str) -> Iterator[Event]:
        """An actor that cannot work where it is; those that may have been sent there are asked for anew."""
        sentence = f"{actor.host} cannot take part: {why}"
        is_new = actor.node not in self._bad_nodes
        self._bad_nodes[actor.node] = f"--on ray: {sentence}"
        self._leave(actor)
        for other in list(self._actors) if is_new else ():
            if other.hello is not None and other.stream is None:
                self._release(other)
        self._looked = -math.inf
        self._look()
        if is_new and self._places:  # else it is said as the run ends
            yield Message(sentence)

    def _mourn(self, actor: _Actor, reason: str, ends_run: bool = False) -> Iterator[Event]:
        """An actor that has died, or can do nothing any more: others do what it had in hand."""
        if actor.stream is None:
            self._release(actor)
            self._stillborn += 1
            if self._stillborn >= _BAD_NODE and not self._there:
                raise Ldr2hdrError(f"--on ray: processes end before they can work ({reason}).")
            if self._stillborn == _BAD_NODE:
                yield Message(f"Processes of Ray end before they can work ({reason}); no more are asked for.")
            return
        if self.board.has(actor):
            deaths = self._deaths[actor.node] = (
                0 if self.board.got_further(actor) else self._deaths.get(actor.node, 0) + 1
            )
            if deaths >= _BAD_NODE:
                self._bad_nodes[actor.node] = f"--on ray: {actor.host} fails again and again ({reason})."
            yield Message(f"A process on {actor.host} failed ({reason}); what it had in hand is done again.")
        self._lost |= self.board.folders(actor)
        for found in self.board.lose(actor, reason, ends_run):
            if isinstance(found, Finished):
                self._finish(found)
                continue
            yield found
            if found.ends_run:
                self.stop.set()
        self._release(actor)

    def _finish(self, finished: Finished) -> None:
        assert self._claims is not None
        self._claims.finish(finished.chunk, finished.made, finished.failures)

    def _release(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        self.ray.kill(actor.handle)

    def _dismiss(self) -> None:
        for actor in list(self._actors):
            self._release(actor)


def _reason(ray: Any, error: Exception) -> str:
    """Of what Ray says of a dead actor, a whole page, what tells one case from another."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "Ray ended it, because its machine was short of memory"
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "it does not answer"
    if found := re.search(r"dead because (?:its|it|the) ([^.]{5,100})\.", str(error)):
        return f"its {found[1]}" if found[1].startswith(("worker", "node")) else f"it {found[1]}"
    return _last_line(error) if "Error" in str(error) else _first_line(error)


def _last_line(error: Exception) -> str:
    """Of a traceback."""
    return str(error).strip().splitlines()[-1].rstrip(".")[:200]
