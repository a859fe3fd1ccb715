"""The Reconstructor: any size, exact where nothing was clipped, tiles that agree with the whole."""

import numpy as np
import pytest
import torch

from model import MaskedUNet, NetworkConfig, Reconstructor, exposure_mask
from model.codes import Codes
from model.device import exact_products
from model.masked_unet import initialise, receptive_radius
from model.tiling import bytes_per_pixel

DEVICES = ["cpu"] + [name for name, there in (("cuda", torch.cuda.is_available()),) if there]
CONFIG = NetworkConfig(base_channels=4, depth=3)


def network(config: NetworkConfig = CONFIG, seed: int = 0) -> MaskedUNet:
    net = initialise(MaskedUNet(config), seed)
    with torch.no_grad():
        net.decoder[0].conv.bias.fill_(0.7)
    return net


def picture(height: int, width: int, seed: int = 0, top: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).random((height, width, 3)) * top).astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3), (8, 8), (33, 65)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_any_size_gives_a_finite_picture_of_it(device, size, precision):
    ldr = picture(*size)
    ldr[0, 0] = 1
    hdr = Reconstructor(network(), device, precision).reconstruct(ldr)
    assert hdr.shape == ldr.shape and hdr.dtype == np.float32
    assert np.isfinite(hdr).all() and hdr.min() >= 0
    exposed = exposure_mask(ldr) == 1
    assert (hdr[exposed] == (ldr**2.0)[exposed]).all()  # bit for bit


def test_a_picture_without_anything_clipped_never_meets_the_network(monkeypatch):
    reconstructor = Reconstructor(network(), "cpu")
    monkeypatch.setattr(reconstructor.net, "encode", None)  # calling it would fail
    ldr = picture(40, 40, top=0.96)
    assert (reconstructor.reconstruct(ldr) == ldr**2.0).all()


def test_tiles_of_a_clip_that_stand_still_are_not_run_again(monkeypatch):
    reconstructor = Reconstructor(network(), "cpu", "fp32", tile=64, overlap=16)
    run = []
    cut = reconstructor._tiles

    def counted(ldr, clipped, tiles):
        run.extend(tiles)
        return cut(ldr, clipped, tiles)

    monkeypatch.setattr(reconstructor, "_tiles", counted)
    clip = reconstructor.clip()
    first = picture(256, 256)
    second = first.copy()
    second[250, 250] = 0.5  # seen by the last tile only
    for frame, count in ((first, 25), (first, 0), (second, 1), (first, 1)):
        run.clear()
        hdr = clip.reconstruct(frame)
        assert len(run) == count
        assert (hdr == Reconstructor(network(), "cpu", "fp32", tile=64, overlap=16).reconstruct(frame)).all()
    run.clear()
    reconstructor.reconstruct(first)
    assert len(run) == 25
    run.clear()
    reconstructor.clip().reconstruct(first)
    assert len(run) == 25
    assert (clip.reconstruct(first) == hdr).all() and len(run) == 25  # it has kept its own


def test_tiles_are_no_larger_than_the_memory_allows(monkeypatch):
    ldr = picture(256, 256)
    whole = Reconstructor(network(), "cpu", "fp32", overlap=16).reconstruct(ldr)
    memory = int(bytes_per_pixel(CONFIG, 4) * 100**2)
    reconstructor = Reconstructor(network(), "cpu", "fp32", overlap=16, memory=memory)
    encode, seen = reconstructor.net.encode, []

    def watched(images, *rest):
        seen.append(images.shape[0] * images.shape[2] * images.shape[3])
        return encode(images, *rest)

    monkeypatch.setattr(reconstructor.net, "encode", watched)
    limited = reconstructor.reconstruct(ldr)
    assert len(seen) > 4 and max(seen) <= 100**2
    assert np.array_equal(limited, Reconstructor(network(), "cpu", "fp32", tile=96, overlap=16).reconstruct(ldr))
    assert not np.array_equal(limited, whole)
    with pytest.raises(ValueError, match="memory must be at least 1 byte"):
        Reconstructor(network(), "cpu", memory=0)


def test_the_network_s_output_is_held_between_black_and_e_to_the_tenth():
    ldr = np.ones((16, 16, 3), np.float32)
    for bias, expected in ((9.0, np.expm1(9)), (50.0, np.expm1(10)), (-50.0, 0)):
        net = network()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
            net.decoder[0].conv.bias.fill_(bias)
        assert np.allclose(Reconstructor(net, "cpu", "fp32").reconstruct(ldr), expected, rtol=1e-5)


def test_tiles_without_anything_clipped_are_not_run(monkeypatch):
    reconstructor = Reconstructor(network(), "cpu", "fp32", tile=64, overlap=16)
    run = []
    cut = reconstructor._tiles

    def counted(ldr, clipped, tiles):
        run.extend(tiles)
        return cut(ldr, clipped, tiles)

    monkeypatch.setattr(reconstructor, "_tiles", counted)
    ldr = picture(256, 256, top=0.9)
    ldr[0, 0] = ldr[250, 250] = 1
    reconstructor.reconstruct(ldr)
    assert {(tile.top, tile.left) for tile in run} == {(0, 0), (192, 192)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("masking", ["feature", "gated"])
def test_tiles_with_a_full_halo_equal_the_whole(device, masking):
    config = NetworkConfig(base_channels=4, depth=3, masking=masking)
    reach = receptive_radius(config)
    ldr = picture(200, 312)
    overlap = -(-(2 * reach + 64) // 8) * 8
    whole = Reconstructor(network(config), device, "fp32").reconstruct(ldr)
    tiled = Reconstructor(network(config), device, "fp32", tile=overlap + 32, overlap=overlap).reconstruct(ldr)
    assert np.allclose(whole, tiled, rtol=1e-4, atol=1e-5)


def test_tiles_with_a_narrow_overlap_agree_to_a_fraction_of_a_stop_and_show_no_seam():
    ldr = np.clip(picture(160, 160), 0.5, 1)
    whole = Reconstructor(network(), "cpu", "fp32").reconstruct(ldr)
    tiled = Reconstructor(network(), "cpu", "fp32", tile=96, overlap=32).reconstruct(ldr)
    clipped = exposure_mask(ldr) < 1
    stops = np.abs(np.log2(tiled + 1e-3) - np.log2(whole + 1e-3))
    assert np.median(stops[clipped]) < 0.05
    assert (whole != tiled).any()  # they were not the same computation


def test_only_the_part_that_clipped_pixels_see_is_run():
    reach = receptive_radius(CONFIG)
    near, far = picture(300, 300, 0, top=0.9), picture(300, 300, 1, top=0.9)
    mixed = far.copy()
    low, high = 150 - reach, 150 + reach + 1
    mixed[low:high, low:high] = near[low:high, low:high]
    near[150, 150] = mixed[150, 150] = 1
    results = [Reconstructor(network(), "cpu", "fp32").reconstruct(ldr)[150, 150] for ldr in (near, mixed)]
    assert np.allclose(*results, rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_out_of_memory_lowers_the_tile_says_so_once_and_goes_on(device, monkeypatch):
    said: list[str] = []
    reconstructor = Reconstructor(network(), device, "fp32", notify=said.append)
    ldr = picture(256, 256)
    encode, sizes = reconstructor.net.encode, []

    def short_of_memory(images, *rest):
        sizes.append(images.shape[2])
        if images.shape[0] * images.shape[2] * images.shape[3] > 128 * 128:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(images, *rest)

    monkeypatch.setattr(reconstructor.net, "encode", short_of_memory)
    first = reconstructor.reconstruct(ldr)
    assert np.isfinite(first).all()
    assert sizes[0] == 256 and sizes[-1] <= 128
    assert len(said) == 1 and "ran out of memory: going on with tiles of 128 pixels" in said[0]
    reconstructor.reconstruct(ldr)
    assert len(said) == 1  # remembered


def test_other_errors_are_not_taken_for_memory(monkeypatch):
    reconstructor = Reconstructor(network(), "cpu")
    monkeypatch.setattr(reconstructor.net, "encode", lambda *_: (_ for _ in ()).throw(RuntimeError("shape")))
    with pytest.raises(RuntimeError, match="shape"):
        reconstructor.reconstruct(picture(16, 16))


def test_the_floor_and_the_transfer_are_those_that_were_asked_for():
    ldr = np.full((16, 16, 3), 0.99, np.float32)
    dark = network(NetworkConfig(base_channels=4, depth=3, floor=True))
    with torch.no_grad():
        for parameter in dark.parameters():
            parameter.zero_()  # Y = 0: black, were it not for the floor
    assert np.allclose(Reconstructor(dark, "cpu", "fp32").reconstruct(ldr), 0.99**2)
    srgb = ((0.99 + 0.055) / 1.055) ** 2.4
    assert np.allclose(Reconstructor(dark, "cpu", "fp32", transfer="srgb").reconstruct(ldr), srgb, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((4, 4, 4)), np.zeros((0, 4, 3))])
def test_another_shape_is_refused(bad):
    with pytest.raises(ValueError, match="H×W×3"):
        Reconstructor(network(), "cpu").reconstruct(bad.astype(np.float32))


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_values_outside_the_range_are_refused(value):
    ldr = picture(4, 4)
    ldr[1, 1, 1] = value
    with pytest.raises(ValueError, match="expected display-encoded values"):
        Reconstructor(network(), "cpu").reconstruct(ldr)


@pytest.mark.parametrize("device", DEVICES)
def test_codes_give_what_their_values_give(device):
    codes = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    reconstructor = Reconstructor(network(), device, working_size=32)
    made = reconstructor.render(reconstructor.predict(Codes(codes))).fetch().pixels
    assert np.array_equal(made, reconstructor.reconstruct(codes.astype(np.float32) / np.float32(255)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(60, 90), (64, 128)])
def test_a_bare_pass_and_chosen_blocks_give_the_same(device, size):
    ldr = picture(*size, top=0.9)
    ldr[10:40, 20:60] = 1
    results = []
    for selective in (True, False):
        reconstructor = Reconstructor(network(), device, "fp32", working_size=32)
        reconstructor._selective = selective
        clip = reconstructor.clip()
        results += [reconstructor.reconstruct(ldr), clip.reconstruct(ldr), clip.reconstruct(ldr), clip.reconstruct(ldr)]
        unclipped = ldr * np.float32(0.5)
        assert np.array_equal(clip.reconstruct(unclipped), unclipped**2)
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-4, atol=1e-5)
    assert (results[0] != ldr**2)[10:40, 20:60].all()


def test_a_threshold_of_ones_own_stands_in_for_that_of_the_weights():
    ldr = picture(40, 40)
    net = network(NetworkConfig(base_channels=4, depth=3, mask_threshold=0.7))
    wanted = Reconstructor(net, "cpu").reconstruct(ldr)
    found = Reconstructor(network(), "cpu", threshold=0.7).reconstruct(ldr)
    assert np.array_equal(found, wanted)
    assert not np.array_equal(found, Reconstructor(network(), "cpu").reconstruct(ldr))
    with pytest.raises(ValueError, match="threshold"):
        Reconstructor(network(), "cpu", threshold=1.0)


def test_several_tiles_at_a_time_that_do_not_fit_are_lowered_in_one_step(monkeypatch):
    said: list[str] = []
    reconstructor = Reconstructor(network(), "cpu", "fp32", tile=64, overlap=16, notify=said.append)
    monkeypatch.setattr(reconstructor, "_batch", lambda *_: 1830)
    ldr = picture(256, 256)
    encode, sizes = reconstructor.net.encode, []

    def short_of_memory(images, *rest):
        sizes.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(images, *rest)

    monkeypatch.setattr(reconstructor.net, "encode", short_of_memory)
    reconstructor.reconstruct(ldr)
    assert sizes == [25] + [1] * 25
    assert said == ["cpu ran out of memory: going on with tiles of 64 pixels, one at a time."]


def test_fp32_is_not_rounded_to_tf32_and_the_flags_are_put_back():
    owners = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [owner.allow_tf32 for owner in owners]
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        with exact_products():
            with exact_products():
                assert [owner.allow_tf32 for owner in owners] == [False, False]
            assert [owner.allow_tf32 for owner in owners] == [False, False]
        assert [owner.allow_tf32 for owner in owners] == [True, before[1]]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_frame_that_is_replayed_is_the_frame():
    ldr = np.clip(picture(256, 256) * 1.1, 0, 1)
    said: list[str] = []
    reconstructor = Reconstructor(network(), "cuda", "bf16", notify=said.append)
    reconstructor._selective = False
    frames = [np.roll(ldr, 8 * index, 1) for index in range(4)]
    clip = reconstructor.clip()
    results = [clip.reconstruct(frame) for frame in frames + frames]
    assert said == [] and reconstructor._replayed._graphs
    for first, again in zip(results, results[4:], strict=False):
        assert np.array_equal(first, again)  # before the capture, and replayed
