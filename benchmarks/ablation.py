"""Tables 1 and 2 of Santos et al. 2020 in small: which masking, which pre-training, and what sampling and losses add.

    python benchmarks/ablation.py --images PHOTOS --hdr PANORAMAS --test NAMES.txt [--steps 500] [--out DIR]

NAMES.txt lists the panoramas that are kept for the test, one a line. Every network is trained and scored by the
commands that users have, all with the same steps and seed; a run that is there already in --out is not made again.
Small networks and short runs rank the methods less surely than the paper's: look at the intervals.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

MASKINGS = {"SConv": "none", "GConv": "gated", "IMask": "input", "FMask": "feature"}
TASKS = {"HDR": "hdr", "Inp.": "inpainting"}
OURS = "FMask + Inp. pre-training"


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        out = given.out or Path(temporary)
        weights = out / "weights"
        weights.mkdir(parents=True, exist_ok=True)
        names = {}
        for label, pretraining, finetuning in variants(given.vgg_weights):
            path = weights / weights_name(label)
            names[path.stem] = label
            if not path.exists():
                make(given, out, path, pretraining, finetuning)
        scores = evaluate(given, out, [weights / f"{name}.safetensors" for name in names])
    table = Table(
        "method", "MSE (γ)", "RMSE, stops", "95 %", "PU21-PSNR, dB", title=f"{given.steps} + {given.steps} steps"
    )
    for name, label in {"clip": "no expansion", **names}.items():
        mse, rmse, psnr = (scores[name][key] for key in ("mse_gamma", "rmse_stops_clipped", "pu21_psnr"))
        spread = "–" if rmse["low"] is None else f"{rmse['low']:.2f}–{rmse['high']:.2f}"
        table.add_row(label, f"{mse['mean']:.4f}", f"{rmse['mean']:.3f}", spread, f"{psnr['mean']:.2f}")
    Console().print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tables 1 and 2 of the paper, in small.")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="photographs, for inpainting")
    parser.add_argument("--hdr", type=Path, required=True, metavar="DIR", help="HDR pictures")
    parser.add_argument("--test", type=Path, required=True, metavar="FILE", help="names of those kept for the test")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where runs are kept; else nowhere")
    parser.add_argument("--vgg-weights", type=Path, metavar="FILE", help="for the perceptual loss; else random ones")
    for option, default in (("steps", 500), ("base-channels", 16), ("patch-size", 128), ("seed", 0)):
        parser.add_argument(f"--{option}", type=int, default=default, metavar="N", help=f"[{default}]")
    return parser.parse_args()


def variants(vgg: Path | None) -> list[tuple[str, list[str], list[str]]]:
    """Label, and what the two stages are told beside what all are."""
    perceptual = ["--perceptual", "random"] if vgg is None else ["--perceptual", "vgg19", "--vgg-weights", str(vgg)]
    found = []
    for masking, value in MASKINGS.items():
        for task, name in TASKS.items():
            found.append(
                (f"{masking} + {task} pre-training", ["--task", name, "--masking", value], ["--masking", value])
            )
    found.append((f"{OURS}, no patch sampling", ["--task", "inpainting"], ["--no-patch-sampling"]))
    found.append((f"{OURS}, perceptual loss", ["--task", "inpainting"], perceptual))
    return found


def weights_name(label: str) -> str:
    """Of the file that holds the network of a label."""
    return "".join(character if character.isalnum() else "_" for character in label) + ".safetensors"


def make(given: argparse.Namespace, out: Path, weights: Path, pretraining: list[str], finetuning: list[str]) -> None:
    """Both stages."""
    common = [
        f"--base-channels={given.base_channels}", f"--patch-size={given.patch_size}", f"--max-steps={given.steps}",
        f"--seed={given.seed}", "--exclude", given.test, "--validation-patches=16",
    ]  # fmt: skip
    first, second = out / f"{weights.stem}-1", out / f"{weights.stem}-2"
    quick = [] if "--perceptual" in finetuning else ["--perceptual", "none"]
    ldr2hdr(
        "train", "pretrain", "--images", given.images, "--out", first, *common, "--perceptual", "none", *pretraining
    )
    ldr2hdr(
        "train", "finetune", "--hdr", given.hdr, "--init", first / "last.safetensors", "--out", second,
        *common, *quick, *finetuning,
    )  # fmt: skip
    weights.write_bytes((second / "last.safetensors").read_bytes())


def evaluate(given: argparse.Namespace, out: Path, weights: list[Path]) -> dict[str, dict]:
    """Metrics by method, of the test pictures with a share of the pixels clipped."""
    options = [text for path in weights for text in ("--weights", path)]
    ldr2hdr(
        "evaluate", "--hdr", given.hdr, "--only", given.test, "--method", "clip", *options, "--no-cvvdp", "--no-mild",
        "--views", 2, "--size", 256, "--page-pictures", 0, "-o", out / "report",
    )  # fmt: skip
    document = json.loads((out / "report" / "results.json").read_text())
    return {entry["method"]: entry["metrics"] for entry in document["summary"]["share"]}


def ldr2hdr(*arguments: object) -> None:
    """Runs a command; what it says goes where it went wrong."""
    done = subprocess.run([sys.executable, "-m", "ldr2hdr_cli", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
