"""The loop: it learns, it can be stopped and resumed to the bit, and what it writes can be loaded."""

import csv
import itertools
import math
import os
import stat
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.utils.data import Dataset

from model import exposure_mask, load_network
from model.checkpoint import save_network
from model.errors import Ldr2hdrError
from model.masked_unet import MaskedUNet, NetworkConfig, initialise
from train import scenes
from train.budget import Budget
from train.checkpoints import CHECKPOINT
from train.config import make_settings
from train.loop import train
from train.run import Listener, Position
from train.samples import HDRDataset
from train.scenes import Pictures
from train.schedule import learning_rate
from train.views import Picture, focal_length, panorama


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
    eager = settings(tmp_path, 30)
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


# -- where samples are made ------------------------------------------------------------------------------------------


def scene(index: int) -> Picture:
    light = np.exp(1.5 * np.random.default_rng(index).normal(0, 1, (48, 96, 3))).astype(np.float32)
    return panorama(light, focal_length(32, 50), focal_length(32, 140))


def camera_set(seed: int = 0) -> HDRDataset:
    return HDRDataset(Pictures(scene, 3), 32, seed)


@pytest.mark.parametrize("data_on", ["device", "processes"])
def test_samples_made_on_the_device_or_by_processes_are_the_same_and_resuming_is_exact(tmp_path, data_on):
    def history(run, steps, where, resume=False):
        chosen = settings(tmp_path / run, steps)
        chosen.data.data_on, chosen.data.workers = where, 1
        return train(chosen, camera_set(), camera_set(7), resume=resume).history

    whole = history("whole", 6, "device")
    assert history("parts", 3, data_on) + history("parts", 6, data_on, resume=True) == whole
    assert len(set(whole)) == 6


def test_pictures_that_do_not_fit_are_an_error_only_where_the_device_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "memory_to_hold", lambda: 1)
    monkeypatch.setattr(scenes, "WORKER_MEMORY", 1)
    data = HDRDataset(Pictures(scene, 3, memory=1), 32, 0)
    chosen = settings(tmp_path, 1)
    chosen.data.data_on = "device"
    with pytest.raises(Ldr2hdrError, match="do not fit into memory; give --data-on processes"):
        train(chosen, data, data)
    chosen.data.data_on = "auto"
    assert train(chosen, data, data).step == 1


# -- what the host does not wait for ----------------------------------------------------------------------------------


class Poisoned(FourPatches):
    """Samples of the steps in `bad` have a picture that is not a number. Batches are of four."""

    def __init__(self, bad):
        self.bad = bad

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return sample | {"ldr": sample["ldr"] * math.nan} if index // 4 in self.bad else sample


@pytest.mark.parametrize("method", ["adam", "muon"])
def test_a_step_whose_gradient_is_not_finite_is_left_out_and_reported(tmp_path, method):
    hearing = Hearing()
    chosen = settings(tmp_path / "bad", 8)
    chosen.optimiser.optimiser = method
    history = train(chosen, Poisoned({2, 3, 6}), FourPatches(), hearing).history
    assert [step for step, loss in enumerate(history) if not math.isfinite(loss)] == [2, 3, 6]
    said = [message for message in hearing.said if "was skipped" in message]
    assert [message.split()[1] for message in said] == ["3", "7"], hearing.said
    clean = settings(tmp_path / "clean", 5)
    clean.optimiser.optimiser = method
    wanted = train(clean, FourPatches(), FourPatches()).history
    assert [loss for loss in history if math.isfinite(loss)] == wanted


def test_gradients_that_are_never_finite_end_the_run(tmp_path):
    with pytest.raises(Ldr2hdrError, match="not finite in 50 steps in a row"):
        train(settings(tmp_path, 200, log_every=1000), Poisoned(range(200)), FourPatches())


def test_a_step_reads_nothing_from_the_device_but_when_it_logs(tmp_path, monkeypatch):
    """`tolist` and `item` are what makes the host wait; each step in between may use neither, nor `bool` or `float`."""
    waits: list[int] = []
    for name in ("tolist", "item", "__bool__", "__float__", "__int__"):
        real = getattr(torch.Tensor, name)

        def counted(tensor, *given, real=real):
            waits.append(1)
            return real(tensor, *given)

        monkeypatch.setattr(torch.Tensor, name, counted)
    counts = []
    for steps in (10, 20):
        waits.clear()
        train(settings(tmp_path / str(steps), steps, log_every=10, validate_every=1000), FourPatches(), FourPatches())
        counts.append(len(waits))
    assert counts[1] - counts[0] <= 2  # one more line of the log


# -- the clock --------------------------------------------------------------------------------------------------------


class Slow(FourPatches):
    def __getitem__(self, index):
        time.sleep(0.01)
        return super().__getitem__(index)


def test_hours_are_counted_from_the_start_of_the_process_to_the_end_of_the_last_save(tmp_path):
    chosen = settings(tmp_path, None, max_hours=8 / 3600)
    chosen.data.validation_patches = 20
    began = time.monotonic() - 4  # the start-up
    outcome = train(chosen, Slow(), Slow(), began=began)
    assert outcome.reason == "hours" and outcome.step > 0
    assert 5 < time.monotonic() - began < 8
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["position"]["seconds"] > 4


def test_budgets_keep_what_the_end_of_a_run_has_taken_before():
    budget = Budget(before=100.0, unsaved=200e6)
    assert 100 <= budget.seconds < 101 and budget.reserve == pytest.approx(1.25 * 4 + 1)
    with budget.measured("save"):
        pass
    with budget.measured("validation"):
        time.sleep(0.02)
    assert budget.of("validation") >= 0.02 and budget.reserve < 1.5


def test_weights_are_written_between_checkpoints_and_in_half_precision_where_asked_for(tmp_path):
    written: list[str] = []

    class Watching(Hearing):
        def progress(self, progress):
            written.extend(path.name for path in tmp_path.glob("last.*") if path.name not in written)

    chosen = settings(
        tmp_path, 12, log_every=1, validate_every=1000, checkpoint_every=1000, weights_minutes=1e-6, half=True
    )
    hearing = Watching()
    train(chosen, FourPatches(), FourPatches(), hearing)
    assert written[0] == "last.safetensors" and written != ["last.ckpt", "last.safetensors"]
    assert "last.ckpt" not in written[:1] and (tmp_path / "best.safetensors").exists()
    for name in ("last", "best"):
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as file:
            assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118


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


# -- rates and averages ---------------------------------------------------------------------------------------------


def rates(run) -> list[float]:
    with (run / "log.csv").open(newline="") as file:
        return [float(row["learning_rate"]) for row in csv.DictReader(file) if row["kind"] == "train"]


@pytest.mark.parametrize("decay", [0.999, 0.3, 0.0])
def test_the_averaged_weights_are_averaged_with_the_stated_decay(tmp_path, decay):
    """Again from the weights after each step, of runs of 1, 2, … steps; the decay rises as (1 + t) / (10 + t)."""
    chosen = [settings(tmp_path / str(steps), steps) for steps in range(1, 5)]
    mean = initialise(MaskedUNet(NetworkConfig(**vars(chosen[0].network))), chosen[0].run.seed).state_dict()
    for step, run in enumerate(chosen, 1):
        run.optimiser.ema = decay
        train(run, FourPatches(), FourPatches())
        after = torch.load(tmp_path / str(step) / CHECKPOINT, weights_only=True)["network"]
        share = min(decay, (1 + step) / (10 + step))
        mean = {name: share * value + (1 - share) * after[name] for name, value in mean.items()}
        kept = load_network(tmp_path / str(step) / "last.safetensors").state_dict()
        assert all(torch.allclose(kept[name], mean[name], atol=1e-6) for name in mean)


def test_a_plateau_halves_the_rate_after_as_many_validations_as_patience_says(tmp_path):
    stuck = settings(tmp_path, 8, validate_every=1, log_every=1)
    stuck.optimiser.schedule, stuck.optimiser.patience, stuck.optimiser.learning_rate = "plateau", 2, 1e-12
    train(stuck, FourPatches(), FourPatches())
    # The first validation is progress on none; the second and the third are not.
    assert rates(tmp_path) == pytest.approx([1e-12] * 3 + [5e-13] * 2 + [2.5e-13] * 2 + [1.25e-13])


def test_progress_keeps_the_rate_of_a_plateau(tmp_path):
    eager = settings(tmp_path, 8, validate_every=1, log_every=1)
    eager.optimiser.schedule, eager.optimiser.patience, eager.optimiser.learning_rate = "plateau", 2, 1e-3
    train(eager, FourPatches(), FourPatches())
    assert rates(tmp_path) == pytest.approx([1e-3] * 8)


def test_a_cosine_falls_from_the_rate_to_a_hundredth_of_it_over_the_budget(tmp_path):
    chosen = settings(tmp_path, 1000)
    chosen.optimiser.schedule, chosen.optimiser.learning_rate = "cosine", 4.0
    fall = [learning_rate(chosen, Position(step)) for step in range(1000)]
    assert fall[0] == 4 and fall[500] == pytest.approx(4 * 0.505) and fall[250] == pytest.approx(4 * 0.855, rel=1e-3)
    assert fall[-1] == pytest.approx(0.04, rel=1e-3) and all(a > b for a, b in itertools.pairwise(fall))
    chosen.run.max_steps, chosen.run.max_hours = None, 2.0
    assert learning_rate(chosen, Position(7, 3600)) == pytest.approx(4 * 0.505)
    assert learning_rate(chosen, Position(7, 7200)) == learning_rate(chosen, Position(7, 9000)) == pytest.approx(0.04)


def test_the_last_step_of_a_cosine_is_taken_at_a_hundredth_of_the_rate(tmp_path):
    chosen = settings(tmp_path, 40, log_every=1)
    chosen.optimiser.schedule = "cosine"
    train(chosen, FourPatches(), FourPatches())
    assert rates(tmp_path)[0] == 5e-3 and rates(tmp_path)[-1] == pytest.approx(5e-5, rel=0.2)


# -- what is left on the disk ---------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_checkpoints_and_weights_are_flushed_and_get_the_mode_of_any_new_file(tmp_path, monkeypatch):
    (tmp_path / "plain").touch()
    flushed = set()
    real = os.fsync

    def fsync(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    train(settings(tmp_path / "run", 10), FourPatches(), FourPatches())
    for name in ("last.ckpt", "last.safetensors", "best.safetensors", "settings.yaml"):
        found = (tmp_path / "run" / name).stat()
        assert stat.S_IMODE(found.st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode), name
        assert found.st_ino in flushed, name


class FullDisk(Hearing):
    """From the first logged step to the `last` one, no file can grow: as on a full disk, EFBIG for ENOSPC."""

    def __init__(self, last=math.inf):
        super().__init__()
        self.last = last

    def progress(self, progress):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        full = progress.step < self.last
        resource.setrlimit(resource.RLIMIT_FSIZE, (0 if full else hard, hard))


def train_on_a_full_disk(run_settings, hearing):
    """The limit is lifted before pytest writes its dot, which may go to a file too."""
    resource = pytest.importorskip("resource", reason="POSIX")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        return train(run_settings, FourPatches(), FourPatches(), hearing)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's thread ends of it
def test_a_full_disk_is_a_warning_and_the_run_goes_on(tmp_path):
    hearing = FullDisk()
    often = settings(tmp_path, 9, log_every=1, validate_every=3, checkpoint_every=4, pictures_every=3)
    end = train_on_a_full_disk(often, hearing)
    assert end.step == 9 and end.reason == "steps"
    for name in ("log.csv", "tensorboard", "pictures"):
        assert sum(f"WARNING: {tmp_path / name} could not be written" in said for said in hearing.said) == 1, name
    unsaved = [said for said in hearing.said if "could not be saved" in said]
    assert sum("best.safetensors" in said for said in unsaved) >= 1 and len(unsaved) >= 4
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob(".ldr2hdr-*"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_has_space_again_is_written_to_again(tmp_path):
    often = settings(tmp_path, 9, log_every=1, validate_every=1)
    hearing = FullDisk(last=6)
    end = train_on_a_full_disk(often, hearing)
    assert end.step == 9 and load_network(tmp_path / "last.safetensors") and load_network(tmp_path / "best.safetensors")
    with (tmp_path / "log.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["kind"] == "train"]
    assert steps == [1, 7, 8, 9]
    assert end.best < math.inf


# -- resuming from what is damaged ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of three steps, to be resumed; its checkpoint's content."""
    folder = tmp_path_factory.mktemp("begun")
    train(settings(folder, 3), FourPatches(), FourPatches())
    return folder / CHECKPOINT


def spoilt(content, *keys, value):
    """A deep copy of nested tables with one entry replaced."""
    if not keys:
        return value
    return {**content, keys[0]: spoilt(content[keys[0]] if len(keys) > 1 else None, *keys[1:], value=value)}


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["position", "step"], "abc"),
        (["position", "step"], -1),
        (["position", "step"], 2.5),
        (["position", "step"], True),
        (["position", "step"], 10**30),
        (["position", "seconds"], math.nan),
        (["position", "seconds"], math.inf),
        (["position", "seconds"], None),
        (["position", "best"], math.nan),
        (["position", "rate_factor"], [1.0]),
        (["position", "new"], 1),
        (["position"], 5),
        (["position"], None),
        (["network"], 5),
        (["network", "encoder.0.conv.weight"], "abc"),
        (["average"], {}),
        (["average", "encoder.0.conv.weight"], torch.zeros(3)),
        (["average", "encoder.0.conv.weight"], 5),
        (["optimiser"], None),
        (["optimiser"], {}),
        (["optimiser", "state"], 5),
        (["optimiser", "state"], {0: 5}),
        (["optimiser", "state"], {"abc": {}}),
        (["optimiser", "state"], {0: {"step": "abc"}}),
        (["optimiser", "state", 0, "exp_avg"], torch.zeros(3)),
        (["optimiser", "state", 0, "exp_avg"], "abc"),
        (["optimiser", "state", 0, "step"], torch.tensor(math.nan)),
        (["optimiser", "param_groups"], []),
        (["scaler"], {"scale": "abc"}),
        (["scaler"], 5),
        (["random"], 5),
        (["random"], torch.zeros(3)),
        (["random"], torch.zeros(3, dtype=torch.uint8)),
        (["format"], 99),
    ],
    ids=lambda part: ".".join(map(str, part)) if isinstance(part, list) else None,
)
def test_a_checkpoint_with_a_value_of_the_wrong_kind_is_refused_by_name(begun, tmp_path, keys, value):
    content = torch.load(begun, weights_only=True)
    torch.save(spoilt(content, *keys, value=value), tmp_path / CHECKPOINT)
    with pytest.raises(Ldr2hdrError) as refused:
        train(settings(tmp_path, 5), FourPatches(), FourPatches(), resume=True)
    assert str(refused.value).startswith(f"{tmp_path / CHECKPOINT} ") and "object" not in str(refused.value)
    if keys[0] in ("position", "average", "optimiser", "scaler", "random") and keys[-1] != "param_groups":
        assert f"is damaged: its {keys[0]} cannot be used; start another run with --init" in str(refused.value)


@pytest.mark.parametrize("key", ["format", "position", "network", "average", "optimiser", "scaler", "random"])
def test_a_checkpoint_that_lacks_something_is_refused_by_name(begun, tmp_path, key):
    content = torch.load(begun, weights_only=True)
    del content[key]
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(Ldr2hdrError, match=CHECKPOINT):
        train(settings(tmp_path, 5), FourPatches(), FourPatches(), resume=True)


def test_a_checkpoint_of_another_optimiser_is_told_from_a_damaged_one(begun, tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(begun.read_bytes())
    other = settings(tmp_path, 5)
    other.optimiser.optimiser = "muon"
    with pytest.raises(Ldr2hdrError, match=r"last\.ckpt is of another optimiser; resume it with the --optimiser"):
        train(other, FourPatches(), FourPatches(), resume=True)
