"""Without the packages of the extra, `evaluate` says so before it looks at a picture."""

import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ldr2hdr_cli.app import app
from ldr2hdr_cli.media.exr import write_exr


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.mark.parametrize(
    ("modules", "options", "message"),
    [
        (
            ["scipy"],
            ["--no-cvvdp"],
            'evaluate needs scipy, which a plain install lacks: pip install "ldr2hdr[evaluate]".',
        ),
        (["scipy", "pycvvdp"], [], "evaluate needs scipy, cvvdp, which"),
        (["pycvvdp"], [], '"ldr2hdr[evaluate]", or leave ColorVideoVDP out with --no-cvvdp.'),
        (["matplotlib"], ["-o", "out"], "evaluate needs matplotlib, which"),
        (["scipy"], ["--video"], "evaluate needs scipy, which"),
        (["pycvvdp", "matplotlib"], ["--no-cvvdp"], "no HDR pictures there"),  # nothing that needs them is asked for
    ],
)
def test_what_is_missing_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: list[str], options: list[str], message: str
) -> None:
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(tmp_path)
    result = evaluate("--hdr", tmp_path, "--weights", "missing.safetensors", *options)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_inputs_for_another_program_need_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scipy", "pycvvdp", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "hdr").mkdir()
    picture = np.exp2(np.random.default_rng(0).uniform(-3, 3, (32, 40, 3))).astype(np.float32)
    write_exr(tmp_path / "hdr" / "attic.exr", picture)
    result = evaluate("--hdr", tmp_path / "hdr", "--save-inputs", tmp_path / "in", "--no-mild")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "in").glob("*.png"))) == 3
