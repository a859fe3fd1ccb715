"""The plan of a run and its manifest."""

from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any

import pytest

from ldr2hdr_cli.convert import job
from ldr2hdr_cli.media.sources import Input
from ldr2hdr_cli.options import ConvertOptions
from model.errors import Ldr2hdrError


def still(name: str, relative: str | None = None) -> Input:
    return Input(Path(name), "still", PurePath(relative or Path(name).stem))


def test_a_still_is_named_after_its_source_and_a_clip_gets_a_folder(tmp_path):
    clip = Input(Path("in/clip.mov"), "video", PurePath("clip"))
    photo, video = job.plan([still("in/photo.v2.jpg", "photo.v2"), clip], tmp_path, ".exr", start_number=1001)
    assert photo.output(0) == tmp_path / "photo.v2.exr"
    assert video.output(0) == tmp_path / "clip" / "clip.001001.exr"
    assert video.output(24) == tmp_path / "clip" / "clip.001025.exr"


@pytest.mark.parametrize("other", ["b/photo.jpg", "b/PHOTO.JPG"])
def test_two_inputs_that_would_write_one_file_are_refused_before_anything_starts(tmp_path, other):
    with pytest.raises(Ldr2hdrError, match=r"a/photo\.jpg and b/.* would both write"):
        job.plan([still("a/photo.jpg"), still(other)], tmp_path, ".exr")


def names(sources: list[Input], out: Path) -> list[str]:
    return [str(item.output(0).relative_to(out)) for item in job.plan(sources, out, ".exr")]


def video(name: str, relative: str) -> Input:
    return Input(Path(name), "video", PurePath(relative))


def test_names_that_would_clash_keep_the_suffixes_of_their_sources(tmp_path):
    assert names([still("a.jpg"), still("b.jpg"), still("A.webp")], tmp_path) == ["a.jpg.exr", "b.exr", "A.webp.exr"]
    # One that has the name which another is given.
    assert names([still("a.jpg"), still("a.jpg.png", "a.jpg"), still("a.webp")], tmp_path) == [
        "a.jpg.exr", "a.jpg.png.exr", "a.webp.exr"
    ]  # fmt: skip
    clips = [video("a.mp4", "a"), video("a.mov", "a")]
    assert names(clips, tmp_path) == ["a.mp4/a.mp4.000001.exr", "a.mov/a.mov.000001.exr"]
    picture = still("clip/clip.000001.jpg", "clip/clip.000001")
    for sources in ([picture, video("clip.mp4", "clip")], [video("clip.mp4", "clip"), picture]):
        assert sorted(names(sources, tmp_path)) == ["clip/clip.000001.exr", "clip/clip.000001.jpg.exr"]


def test_two_clips_of_one_name_beside_their_results_are_refused(tmp_path):
    for name in ("a.mp4", "a.mov"):
        (tmp_path / name).touch()
    with pytest.raises(Ldr2hdrError, match="would both write"):
        names([video(str(tmp_path / name), "a") for name in ("a.mp4", "a.mov")], tmp_path)


def test_a_selection_speaks_in_the_numbers_of_the_outputs():
    chosen = job.Selection(first=100, last=110, every=5, start_number=1)
    assert chosen.indices() == (99, 109)


def test_a_selection_before_the_first_frame_is_misuse():
    with pytest.raises(Ldr2hdrError, match="first frame is number 1001"):
        job.Selection(first=1, last=5, start_number=1001).indices()


@pytest.fixture
def finished(tmp_path):
    """A source, its output, and a manifest that holds both."""
    source, output = tmp_path / "photo.jpg", tmp_path / "out" / "photo.exr"
    output.parent.mkdir()
    source.write_bytes(b"source")
    output.write_bytes(b"result")
    size, modified = job.fingerprint(source)
    manifest = job.Manifest.read(output.parent)
    settings = job.Settings({"weights": "abc"})
    manifest.add(
        {
            "output": "photo.exr",
            "source": str(source),
            "size": size,
            "modified": modified,
            "bytes": 6,
            "sha256": job.sha256(output),
            "settings": settings.digest(),
        }
    )
    manifest.close()
    return source, output, settings


def test_a_finished_output_is_known_again(finished):
    source, output, settings = finished
    assert job.Manifest.read(output.parent).finished(output, source, settings)
    assert job.Manifest.read(output.parent).finished(output, source, settings, verify=True)


def test_other_settings_make_it_unfinished(finished):
    source, output, _ = finished
    assert not job.Manifest.read(output.parent).finished(output, source, job.Settings({"weights": "other"}))


@pytest.mark.parametrize("change", ["source", "missing", "truncated"])
def test_whatever_changed_makes_it_unfinished(finished, change):
    source, output, settings = finished
    if change == "source":
        source.write_bytes(b"another source")
    elif change == "missing":
        output.unlink()
    else:
        output.write_bytes(b"resul")
    assert not job.Manifest.read(output.parent).finished(output, source, settings)


def test_rotten_bytes_are_found_by_verify_alone(finished):
    source, output, settings = finished
    output.write_bytes(b"resulT")
    manifest = job.Manifest.read(output.parent)
    assert manifest.finished(output, source, settings)
    assert not manifest.finished(output, source, settings, verify=True)


def test_a_torn_last_line_is_passed_over_and_the_next_entry_stands_on_its_own(finished):
    source, output, settings = finished
    (path,) = (output.parent / job.MANIFEST).iterdir()
    path.write_text(path.read_text() + '{"output": "torn.exr", "siz')
    manifest = job.Manifest.read(output.parent)
    assert manifest.finished(output, source, settings)
    manifest.add({"output": "next.exr"})
    manifest.close()
    assert set(job.Manifest.read(output.parent).everything().entries) == {"photo.exr", "next.exr"}


def settings(**changed: Any) -> job.Settings:
    """As a run makes them, but for what it finds out itself."""
    decided = ConvertOptions(**changed).deciding()
    return job.Settings({**decided, "weights": "0" * 64, "precision": "fp32", "version": "0.1.0"})


def test_jobs_of_older_versions_are_gone_on_with():
    """Pinned: with another digest every finished file of every user would be made again."""
    assert settings().digest() == "4bfbfb36bef3cd05"
    assert settings(float_=True, preview=True, fps="24000/1001", memory="6G").as_strings().items() >= {
        "half": "False", "preview": "soft", "fps": "24000/1001", "memory": "6G", "exposure": "0.0"
    }.items()  # fmt: skip


ANOTHER: dict[str, Any] = {
    "deinterlace": True, "fps": "25", "method": "clip", "transfer": "srgb", "gamma": 2.2, "exposure": 1.0,
    "temporal": "strong", "working_size": "off", "panorama": "off", "format": "hdr", "float_": True,
    "compression": "piz", "dwa_level": 10.0, "preview": True, "overlap": 64, "colorspace": "acescg",
    "alpha": "straight", "ocio": "ocio://default", "ocio_space": "ACEScg", "channel": "mask", "metadata": False,
    "tile": 512, "memory": "1G", "from_hdr": True, "gain_map": "ignore", "strength": 0.5, "threshold": 0.9,
    "hwaccel": "auto",
}  # fmt: skip


def test_every_option_that_decides_the_bytes_changes_the_digest_and_no_other_does():
    digests = {settings(**{name: value}).digest() for name, value in ANOTHER.items()}
    assert len(digests | {settings().digest()}) == 1 + len(ANOTHER)
    curve = settings(preview=True, preview_curve="plain")
    assert curve.digest() not in digests
    # The weights and the precision are settled by the run; the curve is nothing without the preview.
    deciding = {entry.name for entry in fields(ConvertOptions) if entry.metadata.get("decides")}
    shown = {"white": 100.0, "peak": 600.0, "quality": 80, "avif_bits": "12"}  # of formats that are looked at alone
    assert len({settings(format="avif", **{name: value}).digest() for name, value in shown.items()}) == len(shown)
    films = {"codec": "libsvtav1", "crf": 30.0, "preset": "slow", "frames": "1-5", "every": 2}
    assert len({settings(format="hdr10", **{name: value}).digest() for name, value in films.items()}) == len(films)
    assert settings(**shown, **films).digest() == settings().digest()
    assert deciding == {*ANOTHER, *shown, "codec", "crf", "preset", "preview_curve", "weights", "precision"}
    idle = settings(
        recursive=True,
        start_number=5,
        max_pixels=9,
        max_frames=9,
        overwrite=True,
        verify=True,
        device="cpu",
        encoders=9,
        shard="1/2",
    )
    assert idle.digest() == settings(preview_curve="plain").digest() == settings().digest()


def test_a_pattern_names_the_results(tmp_path):
    clip = video("in/clip.mov", "clip")
    picture = Input(Path("in/plate_0007.png"), "still", PurePath("plate_0007"), 7, "plate_%04d.png")
    named = job.plan([clip, picture], tmp_path, ".exr", 1001, name="{stem}-hdr.{frame:04d}")
    assert [item.output(3) for item in named] == [
        tmp_path / "clip" / "clip-hdr.1004.exr", tmp_path / "plate-hdr.0007.exr"
    ]  # fmt: skip
    assert named[0].pattern() == tmp_path / "clip" / "clip-hdr.####.exr"


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("{stem}", video("a.mov", "a"), r"every frame of a\.mov the same name"),
        ("{stem}.{frame}", still("a.jpg"), r"a\.jpg has no frame number"),
    ],
)
def test_a_pattern_that_a_source_cannot_fill_is_refused(tmp_path, name, source, says):
    with pytest.raises(Ldr2hdrError, match=says):
        job.plan([source], tmp_path, ".exr", name=name)


def test_names_of_a_pattern_that_clash_keep_the_suffixes_of_their_sources(tmp_path):
    items = job.plan([still("a.jpg"), still("a.webp")], tmp_path, ".exr", name="{stem}_hdr")
    assert [item.output(0).name for item in items] == ["a.jpg_hdr.exr", "a.webp_hdr.exr"]


def test_results_of_a_pattern_are_no_sources_the_second_time(tmp_path):
    there = [still(str(tmp_path / name)) for name in ("a.jpg", "a_hdr.exr", "a_hdr.preview.png")]
    assert [item.stem for item in job.plan(there, tmp_path, ".exr", name="{stem}_hdr")] == ["a"]
    frame = still(str(tmp_path / "clip" / "0001-clip.exr"), "clip/0001-clip")
    clip = video(str(tmp_path / "clip.mov"), "clip")
    assert [item.stem for item in job.plan([clip, frame], tmp_path, ".exr", name="{frame:04d}-{stem}")] == ["clip"]


@pytest.mark.parametrize(
    "name", ["", "photo", "{stem}/{frame}", "..{stem}", "{stem.__class__}", "{frame:>9}", "{0}", "{stem", "{stem!r}",
             "a\n{stem}"],
)  # fmt: skip
def test_a_pattern_that_is_none_is_misuse(name):
    with pytest.raises(Ldr2hdrError, match="name"):
        ConvertOptions(name=name)


def test_what_was_made_otherwise_says_how(finished):
    source, output, _ = finished
    manifest = job.Manifest.read(output.parent)
    manifest.add({"output": "photo.exr", "source": str(source)}, job.Settings({"transfer": "gamma", "tile": "auto"}))
    manifest.close()
    now = job.Settings({"transfer": "auto", "tile": "auto", "alpha": "straight"})
    assert job.Manifest.read(output.parent).other_settings(output, now) == "transfer gamma, now auto"
    assert job.Manifest.read(output.parent).other_settings(output.with_name("new.exr"), now) == ""


def test_a_film_is_of_other_frames_where_the_first_one_has_another_number():
    one, other = (
        ConvertOptions(format="hdr10", frames="100-200", start_number=number).deciding() for number in (1, 100)
    )
    assert one != other
    whole = (ConvertOptions(format="hdr10", start_number=number).deciding() for number in (1, 100))
    assert next(whole) == next(whole)
