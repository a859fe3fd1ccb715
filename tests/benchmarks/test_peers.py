"""Other networks, run from checkouts: small ones that the tests write, in the layout of the real ones."""

import importlib.util
import runpy
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

import model
from ldr2hdr_cli.evaluation.protocol import Case
from ldr2hdr_cli.media.colour import REC709, REC2020, conversion
from model.errors import Ldr2hdrError
from model.exposure import encode

pytest.importorskip("scipy")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "peers.py"
CPU = torch.device("cpu")

EXPANDNET = """
import torch
from torch import nn

class ExpandNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.power = nn.Parameter(torch.zeros(1))

    def predict(self, x, patch_size):
        assert patch_size == 256 and not self.training
        return 0.25 + 0.5 * x[0] ** self.power
"""
SMOOTH = """
def smoothen_luminance(predictions, percs):
    assert len(predictions) == len(percs)
    return [one * 0 + two[2] for one, two in zip(predictions, percs)]
"""
ENSEMBLE = """
from .Condition_arch import scaled
import models.modules.arch_util as arch_util
from torch import nn

class Ensemble_AGCM_LE(nn.Module):
    def __init__(self, classifier, cond_c, nf, act_type, weighting_network):
        super().__init__()
        self.dark = nn.Parameter(nn.init.zeros_(arch_util.empty()))

    def forward(self, x):
        picture, condition = x
        assert picture.shape[2] == 4 * condition.shape[2] and picture.shape[2] % 8 == 0
        return scaled(picture, self.dark), condition
"""


@pytest.fixture(scope="module")
def peers():
    spec = importlib.util.spec_from_file_location("peers_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def expandnet(tmp_path):
    (tmp_path / "model.py").write_text(EXPANDNET)
    (tmp_path / "smooth.py").write_text(SMOOTH)
    torch.save({"power": torch.full((1,), 2.0)}, tmp_path / "weights.pth")
    return tmp_path


@pytest.fixture
def hdrtvnet(tmp_path):
    modules = tmp_path / "codes" / "models" / "modules"
    modules.mkdir(parents=True)
    (modules.parent / "__init__.py").write_text("")
    (modules / "__init__.py").write_text("")
    (modules / "arch_util.py").write_text("import torch\ndef empty():\n    return torch.empty(1)\n")
    (modules / "Condition_arch.py").write_text("def scaled(x, dark):\n    return x * dark\n")
    (modules / "Ensemble_AGCM_LE_arch.py").write_text(ENSEMBLE)
    (tmp_path / "pretrained_models").mkdir()
    torch.save({"module.dark": torch.full((1,), 0.5)}, tmp_path / "pretrained_models" / "Ensemble_AGCM_LE.pth")
    return tmp_path


def a_case(side=48):
    """A ramp with a lamp; the camera's curve is eq. 1's."""
    truth = np.linspace(0.02, 0.9, side, dtype=np.float32)[None, :, None].repeat(side, 0).repeat(3, 2)
    truth[10:20, 10:20] = 4.0
    ldr = np.rint(np.sqrt(np.clip(truth, 0, 1)) * 255).astype(np.float32) / 255
    return Case("ramp", "ramp", "share", 8.0, ldr, truth, truth >= 1)


def test_a_checkout_is_run_with_its_weights_and_its_processing(peers, expandnet):
    """The fake network gives ¼ + ½x²; its script stretches the input before and the output after to 0…1."""
    peer, network = peers.loaded(f"expandnet={expandnet}", CPU)
    ldr = np.random.default_rng(3).uniform(0.2, 0.7, (9, 14, 3)).astype(np.float32)
    stretched = (ldr - ldr.min()) / (ldr.max() - ldr.min())
    np.testing.assert_allclose(network.run(ldr), 0.25 + 0.5 * stretched**2, rtol=1e-5)
    np.testing.assert_allclose(peer.linear([network.run(ldr)], [ldr])[0], stretched**2, atol=1e-6)


def test_a_checkouts_names_do_not_meet_ours(peers, expandnet):
    before, path = dict(sys.modules), list(sys.path)
    peers.loaded(f"expandnet={expandnet}", CPU)
    assert sys.modules["model"] is model
    assert sys.modules["model.errors"].Ldr2hdrError is Ldr2hdrError
    assert sys.path == path
    assert not {"smooth"} & (set(sys.modules) - set(before))
    assert not list(expandnet.rglob("__pycache__"))


def test_two_checkouts_with_modules_of_one_name(peers, expandnet, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "net_params").mkdir()
    (other / "model.py").write_text(EXPANDNET.replace("0.25 +", "0.125 +"))
    (other / "smooth.py").write_text(SMOOTH)
    torch.save({"power": torch.ones(1)}, other / "net_params" / "baseRec_tuningStab_ssimLoss.pth")
    (_, first), (_, second) = (peers.loaded(one, CPU) for one in (f"expandnet={expandnet}", f"stable={other}"))
    ldr = np.array([[[0, 0, 0], [1, 1, 1]]], np.float32)
    assert first.run(ldr)[0, :, 0].tolist() == [0.25, 0.75]
    assert second.run(ldr)[0, :, 0].tolist() == [0.125, 0.625]


def test_a_package_with_absolute_and_relative_imports_and_any_size(peers, hdrtvnet):
    peer, network = peers.loaded(f"hdrtvnet={hdrtvnet}", CPU)
    ldr = np.random.default_rng(3).random((21, 34, 3), dtype=np.float32)
    np.testing.assert_allclose(network.run(ldr), ldr / 2, rtol=1e-6)
    assert peer.graded
    assert "models" not in sys.modules


def test_pq_in_bt2020_becomes_light_in_bt709(peers):
    rgb_709 = np.array([[[100, 100, 100], [300, 0, 0], [10, 200, 50]]], np.float64)  # cd/m²
    signal = encode(rgb_709 @ np.array(conversion(REC709, REC2020)).T / 203, "pq")
    light = peers.pq_light([signal.astype(np.float32)])[0]
    np.testing.assert_allclose(light * 203, rgb_709, atol=0.3)


def test_a_graded_picture_gets_the_tone_of_the_input(peers):
    """However it is graded: what is not clipped becomes T², and what is brighter stays brighter."""
    case = a_case()
    graded = (0.3 * case.truth) ** 0.7
    toned = peers.with_tone_of([case.ldr], [graded])[0]
    well_exposed = (case.ldr.max(axis=2) < 0.85) & (case.ldr.max(axis=2) > 0.3)
    np.testing.assert_allclose(toned[well_exposed], case.ldr[well_exposed] ** 2, rtol=0.05)
    assert toned[15, 15, 0] > 1.2


def test_lhdr_divides_by_the_maximum_and_undoes_its_power(peers):
    made = [np.array([[[0.5, 1.0, 2.0]]], np.float32), np.array([[[4.0, -1.0, 0.0]]], np.float32)]
    first, second = peers.lhdr_light(made)
    np.testing.assert_allclose(first[0, 0], np.array([0.125, 0.25, 0.5]) ** 2.2222, rtol=1e-4)
    np.testing.assert_allclose(second[0, 0], [1, 0, 0])


def test_the_table_has_a_row_for_each(peers, expandnet, capsys, tmp_path):
    peer, network = peers.loaded(f"expandnet={expandnet}", CPU)
    methods = {"truth": lambda case: case.truth, peer.title: peers.picture_method(peer, network)}
    given = Namespace(fit_curve=False, cvvdp=False, hdrvdp=False, device="cpu", sheets=tmp_path / "sheets", seed=0)
    peers.compare_pictures([a_case()], methods, given)
    said = capsys.readouterr().out
    assert said.count("ExpandNet") == 2  # the table and the times
    assert "truth 0." in said
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["ramp.png"]


def test_a_clip_is_run_frame_by_frame_and_smoothed_as_its_script_does(peers, expandnet):
    case = a_case(16)
    way = peers.clip_method(*peers.loaded(f"expandnet={expandnet}", CPU))
    frame = Namespace(ldr=case.ldr)
    short = way(Namespace(frames=[frame] * 24))
    assert list(short) == ["ExpandNet"]
    long = way(Namespace(frames=[frame] * 25))
    assert list(long) == ["ExpandNet", "ExpandNet, smoothed"]
    assert len(long["ExpandNet"]) == 25


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("santa=HERE", "NAME=CHECKOUT, where NAME is one of expandnet, stable"),
        ("expandnet", "NAME=CHECKOUT"),
        ("expandnet=HERE/none", "none is not a folder; give a checkout of github.com/dmarnerides/hdr-expandnet"),
        ("lhdr=HERE", "lacks params.pth"),
        ("endo=HERE", "Chainer"),
        ("eilertsen=HERE", "TensorFlow 1"),
    ],
)
def test_what_is_wrong_is_said(peers, tmp_path, argument, sentence):
    with pytest.raises(Ldr2hdrError, match=sentence) as caught:
        peers.loaded(argument.replace("HERE", str(tmp_path)), CPU)
    assert "\n" not in str(caught.value)


def test_a_checkout_that_is_another_is_said(peers, expandnet):
    (expandnet / "params.pth").write_bytes((expandnet / "weights.pth").read_bytes())
    with pytest.raises(Ldr2hdrError, match="needs network"):
        peers.loaded(f"lhdr={expandnet}", CPU)
    torch.save({"other": torch.zeros(1)}, expandnet / "weights.pth")
    with pytest.raises(Ldr2hdrError, match=r"weights\.pth does not hold this network's weights"):
        peers.loaded(f"expandnet={expandnet}", CPU)


def test_the_script_ends_with_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "lhdr=/nowhere/at/all", "--hdr", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert caught.value.code == "/nowhere/at/all is not a folder; give a checkout of github.com/AndreGuo/LHDR."
