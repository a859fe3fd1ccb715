"""`convert`: inputs in, an iterator of events out. The command is a display and signals around it."""

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ldr2hdr_cli.convert import job, pipeline
from ldr2hdr_cli.convert.chunks import Chunk, ChunkEnded, cut
from ldr2hdr_cli.convert.claims import Claims
from ldr2hdr_cli.convert.events import Done, Event, Failed, FileEvent, Message, Note, Skipped, Started
from ldr2hdr_cli.convert.films import Films
from ldr2hdr_cli.convert.formats import write_shown
from ldr2hdr_cli.convert.manifest import Manifest
from ldr2hdr_cli.convert.rendering import assumptions, labels, rendering_of, written_primaries
from ldr2hdr_cli.convert.worklist import Options, Work, length
from ldr2hdr_cli.media.colour import REC709, conversion
from ldr2hdr_cli.media.decode import hardware
from ldr2hdr_cli.media.display_light import DisplayLight
from ldr2hdr_cli.media.exr import frame_attributes, write_exr
from ldr2hdr_cli.media.formats import SHOWN, SUFFIXES
from ldr2hdr_cli.media.ocio import Space
from ldr2hdr_cli.media.ocio import load as load_space
from ldr2hdr_cli.media.preview import preview_strip, write_preview
from ldr2hdr_cli.media.radiance import write_radiance
from ldr2hdr_cli.media.source_info import SourceInfo
from ldr2hdr_cli.media.sources import find_inputs, parse_frames
from ldr2hdr_cli.option_values import encoder_threads, frame_rate, shard
from ldr2hdr_cli.options import ConvertOptions
from model import __version__
from model.atomic import make_folder
from model.errors import Ldr2hdrError

if TYPE_CHECKING:
    import numpy as np

    from model.rendering import Rendered, Rendering, Result

Inputs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def convert(
    inputs: Inputs,
    output: str | os.PathLike[str],
    options: ConvertOptions = ConvertOptions(),
    *,
    stop: threading.Event | None = None,
) -> Iterator[Event]:
    """Convert photographs and clips, and tell what became of each, in their order: what `ldr2hdr convert` runs.

    The work is done while the iterator is read, in any thread: `for event in convert(...)`. A fault of one input is a
    `Failed`, and the others go on. Setting `stop` from any thread ends it early, and so does closing the iterator: what
    is in hand is finished and recorded, and the rest is left to others. The same call again does only what is missing;
    the same call in another process, here or on another machine, shares the work.

    inputs: files, directories, globs, or sequences such as plate.%04d.png. output: the directory for the results.

    Raises Ldr2hdrError, from the first step on, where nothing can be converted: no such input, weights that cannot be
    read, a directory that cannot be written, or in which a run with other settings is at work.
    """
    out, stop = Path(output), stop or threading.Event()
    if options.on is not None:
        from ldr2hdr_cli.farm import on_ray

        yield from on_ray.convert(inputs, out, options, stop)
        return
    items, selection = plan(inputs, out, options)
    yield from shared_names(items)
    converter = Converter(items, selection, out, options, stop)
    try:
        yield from _run(len(items), chunks(items, selection, options), converter, stop)
    finally:
        converter.close()


def plan(inputs: Inputs, output: Path, options: ConvertOptions) -> tuple[list[job.Item], job.Selection]:
    """Every input with its outputs, and the frames that are asked for. Raises Ldr2hdrError."""
    _check(options)
    words = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    found = find_inputs([os.fspath(word) for word in words], recursive=options.recursive)
    first, last = parse_frames(options.frames) if options.frames else (None, None)
    selection = job.Selection(first, last, options.every, options.start_number)
    if any(one.kind == "video" for one in found):
        selection.indices()  # a range that cannot be is misuse, not a failed clip
    if options.fps and not any(one.sequence for one in found):
        raise Ldr2hdrError("--fps is for numbered sequences such as plate.%04d.png, but none is given: leave it out.")
    if set(options.format.split(",")) & set(SHOWN):
        DisplayLight(options.white, options.peak)  # refused now, and not for every picture
    if options.fps and options.films:
        raise Ldr2hdrError(
            f"--format {options.films[0]} makes films of clips alone, not of numbered sequences: omit it, or --fps."
        )
    if not options.pictures and (still := next((one for one in found if one.kind == "still"), None)):
        raise Ldr2hdrError(
            f"{still.path} is a picture, and --format {options.format} is for clips: add ultrahdr or exr."
        )
    suffix, *more = [SUFFIXES[name] for name in options.pictures] or [""]
    name = options.name or ""
    return job.plan(found, output, suffix, options.start_number, name, tuple(more), options.films), selection


def _check(options: ConvertOptions) -> None:
    """Options that exclude each other. Raises Ldr2hdrError."""
    if bool(options.ocio) != bool(options.ocio_space):
        raise Ldr2hdrError("--ocio and --ocio-space go together: a configuration, and the name of a space in it.")
    if options.ocio and options.colorspace != "source":
        raise Ldr2hdrError(f"--ocio and --colorspace {options.colorspace} both say the colour space: omit one.")
    if "hdr" in options.pictures and options.channel != "none":
        raise Ldr2hdrError(f"--channel {options.channel}: Radiance has no such channel; omit --format hdr.")
    others = {
        "--float": options.float_,
        f"--format {options.format}": options.format != "exr",
        "--channel": options.channel != "none",
    }
    if options.colorspace == "aces2065-1" and (given := next((name for name, on in others.items() if on), None)):
        raise Ldr2hdrError(
            f"--colorspace aces2065-1 writes ACES containers (SMPTE ST 2065-4), OpenEXR with R, G, B and A in half "
            f"float: omit {given}, or choose acescg."
        )


def shared_names(items: Sequence[job.Item]) -> Iterator[Note]:
    """A note where results keep the suffixes of their sources."""
    if kept := [item for item in items if item.keeps_suffix]:
        path, name = kept[0].input.path, kept[0].output(0).name
        shared = f"{path}: {len(kept)} inputs would share names with others; their results keep the suffix, as {name}"
        yield Note(kept[0], shared)


def _run(
    inputs: int, chunks: Iterable[Chunk | Failed], converter: "Converter", stop: threading.Event
) -> Iterator[Event]:
    """All chunks that this process can have, and what others have made of the rest."""
    manifest = converter.manifest
    with (
        Claims(converter.out, converter.settings, stop, converter.messages.put) as claims,
        closing(converter.events(claims.share(chunks, manifest.forget))) as events,  # before the claims are given up
    ):
        yield Started(inputs)
        made, failures = 0, list[Failed]()
        for event in events:
            if isinstance(event, ChunkEnded):
                manifest.flush()
                claims.finish(event.chunk, made, failures)
                made, failures = 0, []
                continue
            made += isinstance(event, Done | Skipped)
            failures += [event] if isinstance(event, Failed) else []
            yield event


def chunks(items: Sequence[job.Item], selection: job.Selection, options: ConvertOptions) -> Iterator[Chunk | Failed]:
    """The job's, or those of them that are in its --shard."""
    part, parts = shard(options.shard)
    limits = Options(selection, options.deinterlace, max_pixels=options.max_pixels, max_frames=options.max_frames)
    for chunk in cut(items, selection, is_sequence_clip=bool(options.fps), length=lambda item: length(item, limits)):
        if (chunk.turn if isinstance(chunk, Chunk) else 0) % parts == part - 1:
            yield chunk


class Converter:
    """A job that is open: what was asked for is loaded, and its chunks can be converted, in this process.

    items: of the job. Raises Ldr2hdrError where nothing can be converted. Setting `stop` ends `events`.
    """

    def __init__(
        self,
        items: Sequence[job.Item],
        selection: job.Selection,
        out: Path,
        options: ConvertOptions,
        stop: threading.Event,
    ) -> None:
        has_clip = any(item.input.kind == "video" or (options.fps and item.input.sequence) for item in items)
        is_filtered = has_clip and options.temporal != "off" and options.method == "network"
        self.out = out
        self.messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        decoder, excuse = hardware(options.hwaccel)
        if excuse:
            self.messages.put(excuse)
        space = load_space(options.ocio, options.ocio_space) if options.ocio and options.ocio_space else None
        make_folder(out)
        self.manifest = Manifest.read(out)
        self._operator, self.settings = _operator(options, is_filtered, decoder, space, self.messages.put)
        self._films = Films(options, self.settings, self.manifest, selection)
        self._write = _writer(options, self.settings, self._films, space)
        self._options = _worklist_options(options, selection, decoder, is_filtered, stop)
        self._options.is_filmed = self._films.has

    def events(self, chunks: Iterable[Chunk | FileEvent]) -> Generator[FileEvent | Message | ChunkEnded]:
        """Converts the chunks in their order; after each comes its `ChunkEnded`, when all of it is recorded."""
        run = pipeline.run(
            chunks, self._operator, self._write, self.manifest, self.settings, self._options, self.messages
        )
        try:
            for event in run:
                if isinstance(event, ChunkEnded):
                    yield event
                else:
                    yield from self._films.see(event)
        except GeneratorExit:  # the caller has closed the iterator
            self._options.stop.set()
            for _ in run:  # what is in hand is still recorded
                pass
            raise

    def close(self) -> None:
        self._films.close()
        self.manifest.close()
        self._operator.close()


def _worklist_options(
    options: ConvertOptions, selection: job.Selection, decoder: str, is_filtered: bool, stop: threading.Event
) -> Options:
    return Options(
        selection,
        options.deinterlace,
        options.overwrite,
        options.verify,
        hwaccel=decoder,
        encoders=encoder_threads(options.encoders),
        max_pixels=options.max_pixels,
        max_frames=options.max_frames,
        fps=frame_rate(options.fps),
        panorama=options.panorama if options.method == "network" else "off",
        from_hdr=options.from_hdr,
        gain_map=options.gain_map,
        is_filtered=is_filtered,
        assumptions=lambda info: assumptions(info, options),
        stop=stop,
    )


def _operator(
    options: ConvertOptions, is_filtered: bool, decoder: str, space: Space | None, notify: Callable[[str], None]
) -> tuple[pipeline.Operator, job.Settings]:
    """The operator that was asked for, and the settings that decide the bytes. decoder: the hardware that is used."""
    decided = {**options.deciding(), "temporal": _temporal(options) if is_filtered else "off", "version": __version__}
    decided["hwaccel"] = decoder
    if space is not None:
        decided["ocio"] = space.identity
    half = "hdr" not in options.pictures and not options.float_ and space is None
    rendering = partial(rendering_of, options=options)
    if options.method != "network":
        return _Classical(options, rendering, half), job.Settings({**decided, **_NO_NETWORK})
    from ldr2hdr_cli.convert.network import Network, reconstructors
    from model.checkpoint import weights_sha256

    networks = reconstructors(options, notify)
    decided["weights"] = weights_sha256(options.weights)
    decided["precision"] = networks[-1].precision
    size = networks[-1].working_size
    decided["working_size"] = f"{size} smooth" if size else "off"  # before, there was a grid
    decided["threshold"] = networks[-1].threshold
    decided["passes"] = "blocks" if all(one.selective for one in networks) else "whole"
    network = Network(networks, options.temporal if is_filtered else "off", rendering, half)
    return network, job.Settings(decided)


_NO_NETWORK = {
    "weights": "",
    "precision": "fp32",
    "tile": "auto",
    "overlap": 128,
    "working_size": "off",
    "panorama": "off",
    "memory": "auto",
    "strength": 1.0,
    "threshold": None,
    "passes": "none",
}
"""What the manifest of a classical operator says of the network's options, which do not decide its bytes."""


class _Classical:
    """One of the operators as the pipeline calls it."""

    workers = 1
    ahead = 0

    def __init__(self, options: ConvertOptions, rendering: Callable[[SourceInfo], "Rendering"], half: bool) -> None:
        self._method, self._rendering, self._half = options.method, rendering, half

    def predict(self, work: Work) -> "Rendered":
        import torch

        from ldr2hdr_cli.convert.gain_map import own_light
        from ldr2hdr_cli.convert.operators import THRESHOLD, expand
        from model.exposure import clipped_pixels, exposure_mask, linearise
        from model.rendering import rendered

        rendering, own = self._rendering(work.info), own_light(work.frame, work.info, torch.device("cpu"))
        ldr = work.frame.pixels
        seen = linearise(ldr, rendering.encoding.transfer, rendering.encoding.gamma)
        light = torch.from_numpy(seen if work.info.is_hdr else expand(ldr, self._method, linear=seen))
        codes = torch.from_numpy(ldr)
        if own is not None:
            light = own.beside(light, torch.from_numpy(seen), exposure_mask(codes, THRESHOLD))
        clipped = clipped_pixels(codes, THRESHOLD)
        if work.info.is_hdr:
            clipped.zero_()
        return rendered(lambda rows: light[rows], clipped, rendering, half=self._half)

    def finish(self, _work: Work, predicted: "Rendered") -> "Rendered":
        return predicted

    def lose(self, work: Work) -> None:
        """No frame hangs on another."""

    def close(self) -> None:
        """Nothing is open."""


def _temporal(options: ConvertOptions) -> str:
    """All that decides what a frame takes from those before it."""
    if options.every == 1:
        return options.temporal
    return f"{options.temporal}, every {options.every} of {options.frames or 'all'}"


def _writer(
    options: ConvertOptions, settings: job.Settings, films: Films, space: Space | None
) -> Callable[[Work, "Result"], int]:
    """How one frame is written; the preview first, so that a picture that stands there finished has one.

    space: of `--ocio`.
    """
    strings = settings.as_strings()

    def write(work: Work, result: "Result") -> int:
        info, hdr = work.info, result.pixels
        if options.preview and options.pictures:
            strip = preview_strip(
                work.frame.pixels,
                hdr.astype("f4"),
                curve=options.preview_curve,
                encoding=rendering_of(info, options).encoding,
                source_matrix=conversion(info.chromaticities, REC709),
                matrix=conversion(written_primaries(info, options), REC709),
                white=2.0**options.exposure,
            )
            write_preview(work.item.beside(work.output, ".preview.png"), strip)
        films.add(work, hdr)
        scene = hdr if space is None else space.from_aces(hdr)
        attributes = frame_attributes(
            labels=labels(info, options, space),
            metadata=info.metadata if options.metadata else {},
            frame_rate=Fraction(info.frame_rate) if info.frame_rate else None,
            timecode=work.frame.timecode,
            pixel_aspect=info.pixel_aspect,
            source=work.item.input.path.name,
            frame_number=work.frame_number,
            weights_sha256=settings.weights,
            settings=strings,
            seconds=work.frame.seconds,
        )
        clamped = result.clamped
        # The first comes last too: a picture that stands there finished has the others beside it.
        for name in reversed(options.pictures):
            path = work.item.beside(work.output, SUFFIXES[name])
            if name in SHOWN:
                write_shown(name, path, work, hdr, options, attributes)
            elif name == "hdr":
                write_radiance(path, scene, attributes)
            else:
                clamped += write_exr(
                    path,
                    scene,
                    work.frame.alpha,
                    attributes,
                    half=not options.float_,
                    compression="none" if options.colorspace == "aces2065-1" else options.compression,
                    premultiply=options.alpha == "premultiplied",
                    made_up=_made_up(work, settings) if options.channel == "mask" else None,
                    dwa_level=options.dwa_level,
                )
        return clamped

    return write


def _made_up(work: Work, settings: job.Settings) -> "np.ndarray":
    """1 − M of eq. 1, the largest of the channels: 0 where a pixel is the source's, 1 where it is all made up.

    Nothing is where the source holds all its light, and less where a gain map has its say.
    """
    import torch

    from ldr2hdr_cli.convert.gain_map import own_light
    from ldr2hdr_cli.convert.operators import THRESHOLD
    from model.exposure import exposure_mask

    threshold = THRESHOLD if settings.values["threshold"] is None else settings.values["threshold"]
    mask = torch.from_numpy(exposure_mask(work.frame.pixels, threshold))
    if work.info.is_hdr:
        mask = torch.ones_like(mask)
    own = own_light(work.frame, work.info, torch.device("cpu"))
    return (1 - mask if own is None else own.made_up(mask)).amax(2).numpy()
