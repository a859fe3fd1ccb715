"""Asks the SI-HDR benchmark's own fit of tone and colour, in Octave, for the values that the tests hold.

    python benchmarks/crf_octave.py PU21    Octave's pixels of every pair, and how far ours are from them

PU21 is a checkout of gfxdisp/pu21. Needs `octave-cli`. The pairs are those of `hdrvdp_octave.py` in colour.

On 27 November 2026, with Octave 7.3.0, the largest relative difference of any value of any pair was 9.2e-9; the values
are in `tests/ldr2hdr_cli/evaluation/test_crf.py`.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from hdrvdp_octave import pairs
from scipy.io import loadmat, savemat

from ldr2hdr_cli.evaluation.crf import crf_corrected

OCTAVE = """
addpath('{pu21}/matlab'); s = load('{given}'); names = fieldnames(s); o = struct();
for i = 1:numel(names) v = s.(names{{i}}); o.(names{{i}}) = crf_correction(v(:,:,:,1), v(:,:,:,2)); end
save('-v7', '{made}', '-struct', 'o');
"""
WHERE = ((5, 7), (40, 30), (60, 90))  # rows and columns whose values are printed


def main() -> None:
    """Prints each pair's values, as the tests have them, and the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pu21", type=Path)
    pu21 = parser.parse_args().pu21.resolve()
    chosen = {name: pair for name, pair in pairs().items() if pair.test.ndim == 3}
    with tempfile.TemporaryDirectory() as folder:
        given, made = (str(Path(folder, name)) for name in ("given.mat", "made.mat"))
        stacked = {f"p{i}": np.stack([pair.test, pair.reference], -1) for i, pair in enumerate(chosen.values())}
        savemat(given, stacked)
        script = OCTAVE.format(pu21=pu21, given=given, made=made)
        subprocess.run(["octave-cli", "-q", "--eval", script], check=True, capture_output=True)
        theirs = [loadmat(made)[key] for key in stacked]
    worst = 0.0
    for (name, pair), wanted in zip(chosen.items(), theirs, strict=True):
        mine = crf_corrected(pair.test, pair.reference)
        worst = max(worst, float((np.abs(mine - wanted) / np.maximum(wanted, 1e-3)).max()))
        print(f"{name!r}: {[[round(float(v), 8) for v in wanted[place]] for place in WHERE]},")
    print(f"largest relative difference: {worst:.1e}")


if __name__ == "__main__":
    main()
