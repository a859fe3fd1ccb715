"""`ldr2hdr train pretrain | finetune | patches | average`: gathers the settings, then trains.

The options are made from the fields of `train.config`, where each setting is described once. Nothing heavier than
the standard library and Typer is imported before a command runs.
"""

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldr2hdr_cli.config_file import read_yaml
from ldr2hdr_cli.typer_options import Command, with_options
from model.errors import Ldr2hdrError
from train.config import SECTIONS, Settings, make_settings

if TYPE_CHECKING:
    from train.samples import Samples

BEGAN = time.monotonic()
"""When this process began, as nearly as can be told: nothing heavy has been imported before."""

train_app = typer.Typer(
    name="train",
    help="Train your own weights: inpainting first, then HDR.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

OWN = {"folders", "images", "out", "init", "perceptual"}  # fields whose options the commands spell out or rename below
INPAINTING_ONLY = {
    "lambda_valid",
    "lambda_hole",
    "inpainting_perceptual",
    "inpainting_style",
    "lambda_variation",
}
FINETUNING_ONLY = {"images_share"}


Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.", show_default=False)]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Settings as YAML, as in a run's settings.yaml; flags override it.", show_default=False
    ),
]
Init = Annotated[Path | None, typer.Option("--init", help="Weights to begin with.", show_default=False)]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from last.ckpt in --out, with its settings.")]
Perceptual = Annotated[
    str | None,
    typer.Option(
        "--perceptual",
        help="vgg19 (the paper's), random (the same network, untrained), none (pixel loss only). [vgg19]",
        rich_help_panel="Loss",
        show_default=False,
    ),
]
Camera = Annotated[
    list[str] | None,
    typer.Option(
        "--camera",
        metavar="NAME=VALUE",
        help="One setting of the virtual camera, such as share_low=0.01; repeatable.",
        show_default=False,
    ),
]


@train_app.command(cls=Command)
@with_options(SECTIONS, OWN | FINETUNING_ONLY, bounded=False)
def pretrain(
    flags: dict[str, dict[str, Any]],
    out: Out,
    images: Annotated[
        list[Path] | None, typer.Option("--images", help="Folder of photographs; repeatable.", show_default=False)
    ] = None,
    task: Annotated[
        str, typer.Option(help="inpainting (section 3.3), or hdr: on simulated HDR pictures.")
    ] = "inpainting",
    init: Init = None,
    config: Config = None,
    camera: Camera = None,
    perceptual: Perceptual = None,
    resume: Resume = False,
) -> None:
    """First stage: fill irregular holes in photographs."""
    if task not in ("inpainting", "hdr"):
        raise Ldr2hdrError(f"--task {task}: must be inpainting or hdr.")
    stage = "inpainting" if task == "inpainting" else "simulated"
    _train(stage, flags, out, images, "--images", init, config, camera, perceptual, resume)


@train_app.command(cls=Command)
@with_options(SECTIONS, OWN | INPAINTING_ONLY, bounded=False)
def finetune(
    flags: dict[str, dict[str, Any]],
    out: Out,
    hdr: Annotated[
        list[Path] | None,
        typer.Option(
            "--hdr",
            help="Folder of HDR pictures (.hdr, .exr, float .tif), or of `train patches`; repeatable.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images", help="Folder of photographs to use as HDR scenes too; repeatable.", show_default=False
        ),
    ] = None,
    init: Init = None,
    config: Config = None,
    camera: Camera = None,
    perceptual: Perceptual = None,
    resume: Resume = False,
) -> None:
    """Second stage: reconstruct what a virtual camera clips of HDR pictures."""
    if images:
        flags.setdefault("data", {})["images"] = [str(folder) for folder in images]
    _train("hdr", flags, out, hdr, "--hdr", init, config, camera, perceptual, resume)


@train_app.command()
def patches(
    hdr: Annotated[list[Path], typer.Option("--hdr", help="Folder of HDR pictures; repeatable.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the patches and their index.")],
    per_scene: Annotated[int, typer.Option(min=1, help="Patches cut from each picture.")] = 32,
    size: Annotated[int, typer.Option(min=32, help="Side of a patch in pixels.")] = 512,
    threshold: Annotated[float, typer.Option(min=0, help="Keep patches from this score of algorithm 1 on.")] = 0.85,
    panorama: Annotated[str, typer.Option(help="auto (2:1 pictures), yes, no.")] = "auto",
    exclude: Annotated[
        Path | None, typer.Option(help="A text file that names pictures never to be used, one a line.")
    ] = None,
    camera: Camera = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Cut, score by algorithm 1, filter and store patches, for `finetune --hdr` to take instead of pictures."""
    from ldr2hdr_cli.lock import lock
    from ldr2hdr_cli.train_display import say
    from train.camera import camera_config
    from train.patches import cut_patches
    from train.scenes import excluded_by

    with lock(out):
        summary = cut_patches(
            hdr,
            out,
            _readers(),
            per_scene=per_scene,
            size=size,
            panorama=_panorama(panorama),
            seed=seed,
            threshold=threshold,
            config=camera_config(_pairs(camera)),
            exclude=excluded_by(exclude),
            progress=lambda path, so_far: say(f"{path.name}: {so_far.kept} patches so far"),
            tell=say,
        )
    say(
        f"{summary.kept} patches of {summary.scenes} pictures in {out}; dropped: {summary.untextured} below "
        f"{threshold}, {summary.unsaturated} with nothing clipped, {summary.bad} bad pictures.",
        err=False,
    )


@train_app.command()
def average(
    weights: Annotated[list[Path], typer.Argument(help="Weights files of one lineage.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file to write.", show_default=False)],
    half: Annotated[bool, typer.Option("--half", help="Store float16: half the size.")] = False,
    about: Annotated[
        str | None, typer.Option(help="A sentence about the weights, kept in the file.", show_default=False)
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, kept in the file.", show_default=False)
    ] = None,
) -> None:
    """Write the mean of weights that were trained one from another, or from the same: often better than each."""
    if out.suffix != ".safetensors" or not out.parent.is_dir():
        raise Ldr2hdrError(f"--out {out}: must be a .safetensors file in a folder that exists.")
    from ldr2hdr_cli.train_display import say
    from train.average import write_average

    said = {"ldr2hdr.about": about, "ldr2hdr.licence": licence}
    write_average(weights, out, half, {key: text for key, text in said.items() if text})
    say(f"{out}: the mean of {len(weights)} weights.", err=False)


def _train(
    stage: str,
    flags: dict[str, dict[str, Any]],
    out: Path,
    folders: list[Path] | None,
    option: str,
    init: Path | None,
    config: Path | None,
    camera: list[str] | None,
    perceptual: str | None,
    resume: bool,
) -> None:
    """Settings from defaults, file and flags, in that order; then the loop."""
    given: dict[str, dict[str, Any]] = {section: dict(table) for section, table in flags.items()}
    if folders:
        given.setdefault("data", {})["folders"] = [str(folder) for folder in folders]
    if perceptual:
        given.setdefault("loss", {})["perceptual"] = perceptual
    given.setdefault("run", {})["out"] = str(out)
    if init:
        given["run"]["init"] = str(init)
    if resume and not (out / "last.ckpt").is_file():
        raise Ldr2hdrError(f"{out} has no run to resume (no last.ckpt); omit --resume to start one.")
    layers: list[dict[str, Any]] = [_network_of(init)] if init and not resume else []
    if config:
        layers.append(read_yaml(config))
    elif resume:
        layers.append(settings_of_run(out / "settings.yaml"))
    settings = make_settings(*layers, {"stage": stage, "camera": _pairs(camera)}, given)
    if not settings.data.folders:
        raise Ldr2hdrError(f"Nothing to train on: give {option} DIR.")
    if not resume and (out / "last.ckpt").exists():
        raise Ldr2hdrError(f"{out} already holds a run: resume it with --resume, or choose another --out.")
    _run(settings, out, resume)


def settings_of_run(path: Path) -> dict[str, Any]:
    """The settings.yaml of a run to be resumed, which names every section.

    Raises Ldr2hdrError as `read_yaml`, or where a section is missing: with defaults it would be another run.
    """
    content = read_yaml(path)
    if missing := [name for name in SECTIONS if name not in content]:
        raise Ldr2hdrError(f"{path} is damaged: it has no section {missing[0]}; give the run's settings with --config.")
    return content


def _network_of(weights: Path) -> dict[str, Any]:
    """The network of the weights that a run starts from, which decide its shape."""
    from dataclasses import asdict

    from model.checkpoint import load_network

    if not weights.is_file():
        raise Ldr2hdrError(f"--init {weights}: no such file; give a run's last.safetensors.")
    return {"network": asdict(load_network(weights).config)}


def _run(settings: Settings, out: Path, resume: bool) -> None:
    """The loop; the first process of the run locks the folder, and reports how the run ended."""
    from ldr2hdr_cli.lock import lock
    from ldr2hdr_cli.memory import keep_freed_memory
    from ldr2hdr_cli.train_display import TrainDisplay, say
    from train.datasets import datasets
    from train.loop import train
    from train.processes import speaks_for_the_run

    first = speaks_for_the_run()
    with lock(out) if first else nullcontext(), TrainDisplay() as display:
        training, validation = datasets(settings, _readers(), display.message)
        keep_freed_memory(all_of_it=True)
        credits = {"scenes": json.dumps(_scenes(settings, training, validation))}
        outcome = train(settings, training, validation, display, resume, credits, began=BEGAN)
    if not first:
        return  # always with status 0: the first process reports, and would be killed if another one failed
    best = f"; best validation loss {outcome.best:.5f}" if outcome.best < float("inf") else ""
    say(f"Ended at step {outcome.step} ({outcome.reason}){best}.")
    written = [path for path in (out / "best.safetensors", out / "last.safetensors") if path.exists()]
    say(f"Weights: {', '.join(map(str, written))}")
    if outcome.signal:
        say(f"To continue: the same command with --resume, or ldr2hdr train ... --out {out} --resume")
        raise typer.Exit(128 + outcome.signal)


def _scenes(settings: Settings, *sets: "Samples") -> list[str]:
    """Stems of all pictures of a run, and of those that its first weights name, so that an evaluation can tell."""
    from model.checkpoint import read_scenes

    before = read_scenes(settings.run.init) if settings.run.init else []
    return sorted({*before, *(name for one in sets for pictures in one.pictures for name in pictures.names)})


def _readers() -> Any:
    from ldr2hdr_cli.media.pictures import find_pictures, read_hdr, read_photo
    from train.readers import Readers

    return Readers(find_pictures, read_photo, read_hdr)


def _pairs(items: list[str] | None) -> dict[str, Any]:
    """ "share_low=0.01" → {"share_low": 0.01}."""
    found: dict[str, Any] = {}
    for item in items or []:
        name, _, value = item.partition("=")
        try:
            found[name.strip().replace("-", "_")] = float(value)
        except ValueError:
            raise Ldr2hdrError(f"--camera {item}: write it like share_low=0.01.") from None
    return found


def _panorama(text: str) -> str:
    if text not in ("auto", "yes", "no"):
        raise Ldr2hdrError(f"--panorama {text}: must be auto, yes or no.")
    return text
