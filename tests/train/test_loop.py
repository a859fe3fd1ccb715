"""The loop: it learns, it can be stopped and resumed to the bit, and what it writes can be loaded."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from model import exposure_mask, load_network
from model.checkpoint import save_network
from model.masked_unet import MaskedUNet, NetworkConfig, initialise
from train.config import make_settings
from train.loop import Listener, train


class FourPatches(Dataset):
    """The same four patches again and again: a bright disc on a dark ground."""

    def __len__(self):
        return 1 << 40

    def __getitem__(self, index):
        rows, columns = np.mgrid[:32, :32]
        disc = ((rows - 10 - index % 4) ** 2 + (columns - 16) ** 2 < 60).astype(np.float32)
        truth = torch.from_numpy(0.2 + 4 * disc).expand(3, -1, -1).contiguous()
        ldr = truth.clamp(0, 1).sqrt()
        return {"ldr": ldr, "mask": exposure_mask(ldr), "truth": truth}


def settings(out, steps, loss=None, **run):
    return make_settings(
        {
            "stage": "hdr",
            "network": {"base_channels": 4, "depth": 3},
            "data": {"patch_size": 32, "workers": 0, "validation_patches": 4},
            "loss": {"perceptual": "none", **(loss or {})},
            "optimiser": {"learning_rate": 5e-3, "schedule": "constant"},
            "run": {
                "out": str(out), "max_steps": steps, "accelerator": "cpu", "validate_every": 10,
                "pictures_every": 0, "log_every": 5, **run,
            },
        }
    )  # fmt: skip


@pytest.mark.parametrize("method", ["adam", "muon"])
def test_four_patches_are_learned_by_heart(tmp_path, method):
    eager = settings(tmp_path, 60)
    eager.optimiser.optimiser = method
    history = train(eager, FourPatches(), FourPatches()).history
    assert history[-1] < 0.25 * history[0]


@pytest.mark.parametrize("method", ["adam", "muon"])
@pytest.mark.parametrize("loss", [{}, {"temporal_weight": 1.0, "temporal_start": 3}])
def test_a_resumed_run_takes_the_steps_of_an_uninterrupted_one(tmp_path, loss, method):
    def history(run, steps, resume=False):
        chosen = settings(tmp_path / run, steps, loss)
        chosen.optimiser.optimiser = method
        return train(chosen, FourPatches(), FourPatches(), resume=resume).history

    whole = history("whole", 12)
    first, second = history("parts", 7), history("parts", 12, resume=True)
    assert first + second == whole
    ends = [load_network(tmp_path / run / "last.safetensors").state_dict() for run in ("whole", "parts")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


class Hearing(Listener):
    def __init__(self):
        self.said = []

    def message(self, text):
        self.said.append(text)


def test_a_network_whose_relus_have_died_is_reported_once(tmp_path):
    net = initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3, decoder_activation="relu")))
    torch.nn.init.zeros_(net.decoder[2].conv.weight)
    save_network(net, tmp_path / "dead.safetensors")
    dead = settings(tmp_path, 20, init=str(tmp_path / "dead.safetensors"))
    dead.network.decoder_activation = "relu"
    dead.optimiser.learning_rate = 0.0
    hearing = Hearing()
    train(dead, FourPatches(), FourPatches(), hearing)
    said = [message for message in hearing.said if "does not come back" in message]
    assert len(said) == 1, hearing.said
    assert "8 of 8 channels of decoder level 2" in said[0]


@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors"])
def test_what_is_written_can_be_converted_with(tmp_path, name):
    train(settings(tmp_path, 10), FourPatches(), FourPatches())
    assert load_network(tmp_path / name).config.base_channels == 4
