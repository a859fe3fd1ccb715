"""Other networks beside ours, each from a checkout of its own, on the pictures that `ldr2hdr evaluate` makes.

    python benchmarks/peers.py expandnet=~/hdr-expandnet lhdr=~/LHDR --hdr PANORAMAS --list HOLDOUT.txt
    python benchmarks/peers.py expandnet=~/hdr-expandnet stable=~/temporalStableExpandNet --hdr PANORAMAS --video

    expandnet   dmarnerides/hdr-expandnet           Marnerides et al. 2018, ExpandNet
    stable      kacperkk2/temporalStableExpandNet   ExpandNet trained to be stable, with the SSIM loss
    lhdr        AndreGuo/LHDR                       Guo and Jiang 2022
    hdrtvnet    xiaom233/HDRTVNet-plus              Chen et al. 2023, HDRTVNet++: AGCM and LE in one (its best scores)
    hdrtvdm     AndreGuo/HDRTVDM                    Guo et al. 2023, LSN; needs einops

Nothing of theirs is in this repository. The network is imported from the checkout, which runs the code there, and its
weights are read from the checkout too. What happens before and after the network is what the checkout's own test
script does, except: sides are extended by reflection to multiples of 8 and cropped again; everything runs in fp32,
where HDRTVDM's script uses fp16; HDRTVNet++ gets its condition from PyTorch's anti-aliased bicubic filter, which has
the kernel of MATLAB's; ExpandNet and LHDR normalise a clip once, not every frame, so as not to add flicker.

HDRTVNet++ and HDRTVDM make graded HDR pictures in PQ and BT.2020. They are decoded to light and converted to BT.709.
One monotone curve for the three channels, fitted on the pixels that are not clipped, then gives them the tone of the
input, T² (eq. 1), which the unprocessed picture and our network have by construction. After that every method is
aligned in scale, as in `evaluate`; with --fit-curve, every method's tone is fitted to the truth's instead.

The scores are those of `evaluate`. Seconds a megapixel: the second run on the first picture, from the picture in
memory to linear light.

Of the networks that Santos et al. 2020 compare with, Marnerides et al. is `expandnet`. Endo et al. 2017 (DrTMO) needs
Chainer, whose development has ended and which does not install on a current Python. Eilertsen et al. 2017 (hdrcnn)
needs TensorFlow 1, and its weights are on a university's server, not in its repository.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from torch.nn import functional as F

from ldr2hdr_cli.convert.operators import METHODS
from ldr2hdr_cli.evaluation import clip_report, report
from ldr2hdr_cli.evaluation.alignment import fit_curve
from ldr2hdr_cli.evaluation.clips import Clip, made_clips
from ldr2hdr_cli.evaluation.compare import CURVE_PIXELS, Method, Result, Scoring, compare, methods_by_name, network_name
from ldr2hdr_cli.evaluation.flicker import ClipMethod, network_clips, operator_clips, score_clip
from ldr2hdr_cli.evaluation.options import shares
from ldr2hdr_cli.evaluation.protocol import Case, Protocol, made_cases, read_list
from ldr2hdr_cli.evaluation.summary import summarise
from ldr2hdr_cli.media.colour import REC709, REC2020, conversion
from model.atomic import make_folder, write_atomically
from model.errors import Ldr2hdrError
from model.exposure import linearise

MULTIPLE = 8  # of which the networks want their sides
PATCH = 256  # ExpandNet's own default for --patch_size
SMOOTHING_FRAMES = 25  # the window over which ExpandNet's --video smooths; it refuses shorter clips
LHDR_GAMMA = 1 / 0.45

Pictures = list[np.ndarray]


@dataclass(frozen=True)
class Network:
    """run: a display-encoded picture, H×W×3 in [0, 1] → what the network makes of it, H×W×3 float32.

    smooth: what its own script does to the frames of a clip after `run`, where it does something.
    """

    run: Callable[[np.ndarray], np.ndarray]
    smooth: Callable[[Pictures], Pictures] | None = None


@dataclass(frozen=True)
class Peer:
    """title: in the tables. repository: on GitHub. weights: in the checkout.

    load: (checkout, weights, device) → the network. light: what it made of the frames of a clip, or of one picture,
    → linear BT.709 of any scale. graded: whether somebody's taste decides about its tone.
    """

    title: str
    repository: str
    weights: str
    load: Callable[[Path, Path, torch.device], Network]
    light: Callable[[Pictures], Pictures]
    graded: bool = False

    def linear(self, made: Pictures, ldr: Pictures) -> Pictures:
        """From what `Network.run` made of `ldr` to what is compared, never negative."""
        pictures = self.light(made)
        return with_tone_of(ldr, pictures) if self.graded else pictures


def load_expandnet(checkout: Path, weights: Path, device: torch.device) -> Network:
    net = with_weights(imported(checkout, "model").ExpandNet(), weights, device)
    smoothen = imported(checkout, "smooth").smoothen_luminance

    def run(ldr: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return picture(net.predict(tensor(full_range([ldr])[0], device), PATCH))

    def smooth(made: Pictures) -> Pictures:
        return smoothen(made, [np.percentile(frame, (1, 25, 50, 75, 99)) for frame in made])

    return Network(run, smooth)


def load_stable(checkout: Path, weights: Path, device: torch.device) -> Network:
    return replace(load_expandnet(checkout, weights, device), smooth=None)  # off by default in its script


def load_lhdr(checkout: Path, weights: Path, device: torch.device) -> Network:
    module = imported(checkout, "network")
    net = with_weights(module.LiteHDRNet(in_nc=3, out_nc=3, nf=32, act_type="leakyrelu"), weights, device)

    def run(ldr: np.ndarray) -> np.ndarray:
        bright = np.clip((ldr - 0.9) / (1 - 0.9), 0, 1)
        small = cv2.resize(ldr, (0, 0), fx=0.25, fy=0.25)
        return picture(net(tuple(tensor(one, device) for one in (ldr, bright, small))))

    return Network(padded(run))


def load_hdrtvnet(checkout: Path, weights: Path, device: torch.device) -> Network:
    module = imported(checkout / "codes", "models.modules.Ensemble_AGCM_LE_arch")
    net = module.Ensemble_AGCM_LE("color_condition", cond_c=6, nf=32, act_type="relu", weighting_network=False)
    net = with_weights(net, weights, device)

    def run(ldr: np.ndarray) -> np.ndarray:
        whole = tensor(ldr, device)
        small = F.interpolate(whole, scale_factor=0.25, mode="bicubic", antialias=True)
        return picture(net((whole, small))[0])

    return Network(padded(run))


def load_hdrtvdm(checkout: Path, weights: Path, device: torch.device) -> Network:
    net = with_weights(imported(checkout / "method", "network").TriSegNet(), weights, device)
    return Network(padded(lambda ldr: picture(net(tensor(ldr, device)))))


def full_range(pictures: Pictures) -> Pictures:
    """ExpandNet's map_range: the smallest value of all pictures becomes 0, the largest 1."""
    low, high = min(one.min() for one in pictures), max(one.max() for one in pictures)
    return [(one - low) / max(high - low, np.float32(1e-12)) for one in pictures]


def lhdr_light(pictures: Pictures) -> Pictures:
    largest = max(float(one.max()) for one in pictures)
    return [(np.maximum(one, 0) / np.float32(largest or 1)) ** np.float32(LHDR_GAMMA) for one in pictures]


def pq_light(pictures: Pictures) -> Pictures:
    """PQ in BT.2020 to linear BT.709; colours outside it are clipped to its borders."""
    to_709 = np.array(conversion(REC2020, REC709), np.float32)
    return [np.maximum(linearise(np.clip(one, 0, 1), "pq") @ to_709.T, 0).astype(np.float32) for one in pictures]


PEERS = {
    "expandnet": Peer("ExpandNet", "dmarnerides/hdr-expandnet", "weights.pth", load_expandnet, full_range),
    "stable": Peer(
        "stable ExpandNet",
        "kacperkk2/temporalStableExpandNet",
        "net_params/baseRec_tuningStab_ssimLoss.pth",
        load_stable,
        full_range,
    ),
    "lhdr": Peer("LHDR", "AndreGuo/LHDR", "params.pth", load_lhdr, lhdr_light),
    "hdrtvnet": Peer(
        "HDRTVNet++",
        "xiaom233/HDRTVNet-plus",
        "pretrained_models/Ensemble_AGCM_LE.pth",
        load_hdrtvnet,
        pq_light,
        graded=True,
    ),
    "hdrtvdm": Peer("HDRTVDM", "AndreGuo/HDRTVDM", "method/params.pth", load_hdrtvdm, pq_light, graded=True),
}
NOT_RUN = {
    "endo": "DrTMO (Endo et al. 2017) needs Chainer, which does not install on a current Python; leave it out.",
    "eilertsen": "hdrcnn (Eilertsen et al. 2017) needs TensorFlow 1, and its weights are not in its repository; "
    "leave it out, or run it elsewhere and give its pictures to `ldr2hdr evaluate --prediction`.",
    "marnerides": "Marnerides et al. 2018 is called expandnet here.",
}


def imported(folder: Path, name: str) -> ModuleType:
    """Module `name` as it is in `folder`, whatever else has that name here: ExpandNet's is called model, as is ours.

    Afterwards `sys.modules` and `sys.path` are as before, and nothing was written into the checkout.
    """
    top = name.partition(".")[0]
    hidden = {key: sys.modules.pop(key) for key in list(sys.modules) if key == top or key.startswith(top + ".")}
    before, writes = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Ldr2hdrError(f"{name} of {folder} needs {error.name}; install it or correct the checkout.") from error
    except Exception as error:  # it is somebody else's code
        raise Ldr2hdrError(f"{name} of {folder} cannot be imported ({error}); is it the right checkout?") from error
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes
        for key in set(sys.modules) - before:
            if _lies_in(sys.modules[key], folder):
                del sys.modules[key]
        sys.modules.update(hidden)
    if not _lies_in(module, folder):
        raise Ldr2hdrError(f"{folder} has no module {name}; is it the right checkout?")
    return module


def _lies_in(module: ModuleType, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    return any(place and Path(place).is_relative_to(folder) for place in places)


def with_weights(net: torch.nn.Module, weights: Path, device: torch.device) -> Any:
    """`net` for inference with what `weights` holds. Raises Ldr2hdrError where that is not of this network."""
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        net.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    except Exception as error:
        raise Ldr2hdrError(f"{weights} does not hold this network's weights; get the file again.") from error
    return net.to(device).eval().requires_grad_(False)


def padded(run: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """`run` for pictures of any size."""

    def run_padded(ldr: np.ndarray) -> np.ndarray:
        height, width = ldr.shape[:2]
        below, right = -height % MULTIPLE, -width % MULTIPLE
        return run(cv2.copyMakeBorder(ldr, 0, below, 0, right, cv2.BORDER_REFLECT))[:height, :width]

    return run_padded


def tensor(ldr: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(ldr.transpose(2, 0, 1), np.float32))[None].to(device)


def picture(made: torch.Tensor) -> np.ndarray:
    """1×3×H×W or 3×H×W → H×W×3."""
    return np.ascontiguousarray(made.reshape(made.shape[-3:]).permute(1, 2, 0).float().cpu().numpy())


def with_tone_of(ldr: Pictures, made: Pictures) -> Pictures:
    """`made` through the one monotone curve that fits its unclipped pixels to T²."""
    every = slice(None, None, 1 if len(ldr) == 1 else 4)
    some, shown = (np.concatenate([one[every] for one in pictures]) for pictures in (made, ldr))
    curve = fit_curve(some, shown**2, shown.max(axis=2) <= CURVE_PIXELS)
    return [curve(one) for one in made]


def loaded(argument: str, device: torch.device) -> tuple[Peer, Network]:
    """NAME=CHECKOUT. Raises Ldr2hdrError for an unknown name, or a folder without the network or its weights."""
    name, _, folder = argument.partition("=")
    if name in NOT_RUN:
        raise Ldr2hdrError(NOT_RUN[name])
    if name not in PEERS or not folder:
        raise Ldr2hdrError(f"{argument}: give NAME=CHECKOUT, where NAME is one of {', '.join(PEERS)}.")
    peer, checkout = PEERS[name], Path(folder).expanduser().resolve()
    if not checkout.is_dir():
        raise Ldr2hdrError(f"{checkout} is not a folder; give a checkout of github.com/{peer.repository}.")
    if not (checkout / peer.weights).is_file():
        raise Ldr2hdrError(f"{checkout} lacks {peer.weights}; give a whole checkout of github.com/{peer.repository}.")
    return peer, peer.load(checkout, checkout / peer.weights, device)


def picture_method(peer: Peer, network: Network) -> Method:
    return lambda case: peer.linear([network.run(case.ldr)], [case.ldr])[0]


def clip_method(peer: Peer, network: Network) -> ClipMethod:
    def convert(clip: Clip) -> dict[str, Pictures]:
        ldr = [frame.ldr for frame in clip.frames]
        made = [network.run(frame) for frame in ldr]
        ways = {peer.title: peer.linear(made, ldr)}
        if network.smooth is not None and len(made) >= SMOOTHING_FRAMES:
            ways[f"{peer.title}, smoothed"] = peer.linear(network.smooth(made), ldr)
        return ways

    return convert


def compare_pictures(cases: Iterable[Case], methods: dict[str, Method], given: argparse.Namespace) -> None:
    """Prints a table for each kind of exposure, and how long each method takes; after Ctrl-C, of what is done."""
    scoring = Scoring(given.fit_curve, given.cvvdp, device=given.device, hdrvdp=given.hdrvdp)
    rows: list[dict[str, Any]] = []
    seconds: dict[str, float] = {}
    try:
        for number, case in enumerate(cases, 1):
            seconds = seconds or {name: seconds_a_megapixel(method, case) for name, method in methods.items()}
            result = next(compare([case], methods, scoring))
            rows += result.rows
            if given.sheets:
                write_sheet(given.sheets, result)
            print(f"{number}: {case.name}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("Stopped early.", file=sys.stderr)
    if not rows:
        raise Ldr2hdrError("No picture was scored; give pictures with more detail, or more time.")
    for scores in summarise(rows, given.seed).values():
        Console(width=120).print(report.table(scores))
    print("Seconds a megapixel: " + ", ".join(f"{name} {value:.2f}" for name, value in seconds.items()))


def seconds_a_megapixel(method: Method, case: Case) -> float:
    method(case)
    began = time.perf_counter()
    method(case)
    return (time.perf_counter() - began) / (case.ldr.size / 3e6)


def write_sheet(folder: Path, result: Result) -> None:
    """A PNG: the input above what is clipped, then the truth and each aligned result, at 0 stops above −3."""
    case = result.case
    shown = [
        np.concatenate([np.clip(linear * 2.0**stops, 0, 1) ** (1 / 2.2) for stops in (0, -3)])
        for linear in (case.truth, *result.pictures.values())
    ]
    first = np.concatenate([case.ldr, case.clipped.astype(np.float32)])
    codes = (np.concatenate([first, *shown], axis=1)[..., ::-1] * 255 + 0.5).astype(np.uint8)
    make_folder(folder)
    write_atomically(folder / f"{case.name}.png", cv2.imencode(".png", codes)[1].tobytes())


def compare_clips(clips: Iterable[Clip], methods: list[ClipMethod], seed: int) -> None:
    """Prints the table of `evaluate --video`; after Ctrl-C, of what is done."""
    rows: list[dict[str, Any]] = []
    number = 0
    try:
        for clip in clips:
            found = [score_clip(frames, clip, name) for way in methods for name, frames in way(clip).items()]
            rows, number = rows + found, number + 1
            print(f"{number}: {clip.name}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("Stopped early.", file=sys.stderr)
    if not rows:
        raise Ldr2hdrError("No clip was scored; give panoramas in which something outshines the rest, or more time.")
    Console(width=120).print(clip_report.clip_table(clip_report.summarise_clips(rows, seed), number))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Other networks beside ours.")
    parser.add_argument("peers", nargs="+", metavar="NAME=CHECKOUT", help=", ".join(PEERS))
    parser.add_argument("--hdr", type=Path, required=True, metavar="DIR", help="panoramas or other HDR pictures")
    parser.add_argument("--list", type=Path, metavar="FILE", help="the scenes to use, one name a line")
    parser.add_argument("--weights", action="append", type=Path, help="of ldr2hdr, beside the default; repeat it")
    parser.add_argument("--method", action="append", choices=METHODS, help="operators; repeat it [clip]")
    parser.add_argument("--share", type=shares, default="4,8,12", metavar="LIST", help="per cent clipped [4,8,12]")
    parser.add_argument("--no-mild", dest="mild", action="store_false", help="without mildly over-exposed pictures")
    parser.add_argument("--views", type=int, default=3, help="of a panorama [3]")
    parser.add_argument("--size", type=int, default=512, help="of a view, in pixels [512]")
    parser.add_argument("--seed", type=int, default=0, help="as of evaluate [0]")
    parser.add_argument("--device", default="cpu", help="cpu, cuda [cpu]")
    parser.add_argument("--fit-curve", action="store_true", help="also remove the camera curve, as of evaluate")
    parser.add_argument("--no-cvvdp", dest="cvvdp", action="store_false", help="without ColorVideoVDP")
    parser.add_argument("--hdrvdp", action="store_true", help="with HDR-VDP-3 and HDR-VDP-2.2")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="write every result there, to be looked at")
    parser.add_argument("--video", action="store_true", help="clips: flicker and errors")
    parser.add_argument("--frames", type=int, default=25, help="of a clip [25]")
    parser.add_argument("--clips", type=int, help="at most")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    device = torch.device(given.device)
    networks = [loaded(one, device) for one in given.peers]
    operators, ours = given.method or ["clip"], [None, *(given.weights or [])]
    only = read_list(given.list) if given.list else []
    if given.video:
        ways = [operator_clips(name) for name in operators]
        ways += [network_clips(network_name(path), path, given.device) for path in ours]
        ways += [clip_method(peer, network) for peer, network in networks]
        clips = made_clips(given.hdr, frames=given.frames, size=given.size, seed=given.seed, only=only)
        compare_clips(islice(clips, given.clips), ways, given.seed)
        return
    methods = methods_by_name(operators, ours, [], given.device)
    methods |= {peer.title: picture_method(peer, network) for peer, network in networks}
    protocol = Protocol(given.share, given.mild, seed=given.seed, size=given.size, views=given.views, only=only)
    compare_pictures(made_cases(given.hdr, protocol), methods, given)


if __name__ == "__main__":
    try:
        main()
    except Ldr2hdrError as error:
        sys.exit(str(error))
