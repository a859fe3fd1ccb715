"""How far tiles agree with the whole: the same picture in one piece and in tiles, in stops inside clipped areas.

    python benchmarks/tiling.py [PICTURE ...]

Without pictures it takes those of examples/. Without the working size (off) and with it, as `convert` does (512).
Nothing here is asserted.
"""

import sys
from pathlib import Path

import numpy as np

from ldr2hdr_cli.media.sources import read_still
from model import Reconstructor, exposure_mask, load_network
from model.checkpoint import usual_working_size

EXAMPLES = Path(__file__).parent.parent / "examples"


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]] or sorted(EXAMPLES.glob("*.jpg"))
    net = load_network()
    print(f"{'picture':>24} {'working':>7} {'tile':>5} {'overlap':>7} {'median':>8} {'99 %':>8} {'largest':>8}  stops")
    for path in paths:
        ldr = read_still(path)[1].pixels
        clipped = exposure_mask(ldr) < 1
        for working_size in (None, usual_working_size()):
            whole = Reconstructor(net, precision="fp32", tile=2**14, working_size=working_size)
            expected = whole.reconstruct(ldr)[clipped]
            for tile, overlap in ((256, 64), (384, 128), (512, 128), (512, 256), (1024, 256)):
                if tile >= max(ldr.shape):
                    continue
                tiled = Reconstructor(net, precision="fp32", tile=tile, overlap=overlap, working_size=working_size)
                found = tiled.reconstruct(ldr)[clipped]
                off = np.abs(np.log2(found.clip(1e-6)) - np.log2(expected.clip(1e-6)))
                figures = f"{np.median(off):8.4f} {np.percentile(off, 99):8.4f} {off.max():8.3f}"
                print(f"{path.name:>24} {working_size or 'off':>7} {tile:5} {overlap:7} {figures}", flush=True)


if __name__ == "__main__":
    main()
