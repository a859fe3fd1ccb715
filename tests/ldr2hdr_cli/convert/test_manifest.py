"""A manifest in parts: read where it is needed, written by several hosts, taken over from versions with one file."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ldr2hdr_cli.convert.events import Done, Failed
from ldr2hdr_cli.convert.manifest import BLOCK, EARLIER, MANIFEST, Manifest, Settings, fingerprint, sha256
from ldr2hdr_cli.convert.run import convert
from ldr2hdr_cli.options import ConvertOptions
from model.errors import Ldr2hdrError

SETTINGS = Settings({"weights": "abc", "exposure": 0.0})


def entry(name: str, frame: int | None = None, **more) -> dict:
    return {"output": name, "source": "/in/clip.mov", "frame": frame, **more}


def opened(out: Path, *entries: dict) -> Manifest:
    manifest = Manifest.read(out)
    for one in entries:
        manifest.add(one, SETTINGS)
    manifest.flush()
    return manifest


def test_a_frame_is_found_without_reading_what_is_said_of_the_others(tmp_path):
    frames = [(f"clip/clip.{number:06d}.exr", number) for number in (1, BLOCK - 1, BLOCK, 5 * BLOCK)]
    opened(tmp_path, *(entry(name, number, bytes=number) for name, number in frames), entry("a.exr"))
    for part in (tmp_path / MANIFEST / "clip").iterdir():
        if not part.name.startswith("000000000@"):
            part.unlink()
            part.mkdir()  # cannot be read
    (tmp_path / MANIFEST / "clip" / "torn").write_text("no part")
    manifest = Manifest.read(tmp_path)
    for name, number in frames[:2]:
        assert (manifest.entry(tmp_path / name, number) or {})["bytes"] == number
    assert manifest.entry(tmp_path / "clip" / "clip.000002.exr", 2) is None
    assert manifest.entry(tmp_path / "a.exr") is not None
    with pytest.raises(Ldr2hdrError, match=r"000000960@.*cannot be read"):
        manifest.entry(tmp_path / "clip" / "clip.000960.exr", BLOCK)


def test_what_another_host_has_recorded_counts_when_it_is_later(tmp_path):
    manifest = opened(tmp_path, entry("a.exr", sha256="mine"))
    place = tmp_path / "a.exr"
    assert (manifest.entry(place) or {})["sha256"] == "mine"
    theirs = tmp_path / MANIFEST / "pictures@other-0000.jsonl"
    theirs.write_text(json.dumps(entry("a.exr", sha256="old", time=1.0)) + "\n")
    manifest.forget()
    assert (manifest.entry(place) or {})["sha256"] == "mine"
    with theirs.open("a") as file:
        file.write(json.dumps(entry("a.exr", sha256="new", time=9e9)) + "\n" + '{"output": "b.exr", "fra')
    assert (manifest.entry(place) or {})["sha256"] == "mine"  # read before, and nothing says that it has changed
    manifest.forget()
    assert (manifest.entry(place) or {})["sha256"] == "new"
    with theirs.open("a") as file:
        file.write('me": null}\n')  # the rest of a line that was being written
    manifest.forget()
    assert manifest.entry(tmp_path / "b.exr") is not None


def test_a_manifest_of_one_file_is_taken_over(tmp_path):
    source, output = tmp_path / "in.jpg", tmp_path / "in.exr"
    source.write_bytes(b"source")
    output.write_bytes(b"result")
    size, modified = fingerprint(source)
    known = {"output": "in.exr", "source": str(source), "size": size, "modified": modified, "bytes": 6}
    known |= {"sha256": sha256(output), "settings": SETTINGS.digest(), "weights": "abc"}
    frames = [entry(f"clip/clip.{number:06d}.exr", number, settings=SETTINGS.digest()) for number in range(1, 2000)]
    lines = [
        {"digest": SETTINGS.digest(), "settings": dict(SETTINGS.values)},
        {"failed": "/in/clip.mov", "frame": 3, "message": "It was damaged."},
        {"failed": "/in/gone.jpg", "frame": None, "message": "It is gone."},
        *frames,
        {**known, "bytes": 5},
        known,
    ]
    (tmp_path / EARLIER).write_text("\n".join(map(json.dumps, lines)) + '\n{"output": "torn')
    manifest = Manifest.read(tmp_path)
    assert not (tmp_path / EARLIER).exists()
    assert manifest.finished(output, source, SETTINGS, verify=True)
    other = Settings({"weights": "abc", "exposure": 1.0})
    for name, frame in (("in.exr", None), ("clip/clip.001999.exr", 1999)):
        assert manifest.other_settings(tmp_path / name, other, frame) == "exposure 0.0, now 1.0"
    everything = Manifest.read(tmp_path).everything()
    assert everything.entries.keys() == {"in.exr", *(one["output"] for one in frames)}
    assert everything.failures == {("/in/gone.jpg", None): "It is gone."}  # the other was converted after that


def test_a_run_that_was_killed_while_it_took_over_does_it_again(tmp_path):
    text = json.dumps(entry("a.exr", sha256="1")) + "\n" + json.dumps(entry("a.exr", sha256="2")) + "\n"
    (tmp_path / EARLIER).write_text(text)
    Manifest.read(tmp_path)
    (tmp_path / EARLIER).write_text(text)
    assert (Manifest.read(tmp_path).entry(tmp_path / "a.exr") or {})["sha256"] == "2"


def test_a_failure_counts_until_it_is_converted_and_is_recorded_once(tmp_path):
    manifest = Manifest.read(tmp_path)
    source = Path("/in/clip.mov")
    for _ in range(2):
        manifest.add_failure(tmp_path / "clip" / "clip.000007.exr", source, 7, "It is damaged.")
    manifest.close()
    (part,) = (tmp_path / MANIFEST / "clip").iterdir()
    assert part.read_text().count("damaged") == 1
    assert Manifest(tmp_path).everything().failures == {(str(source), 7): "It is damaged."}
    opened(tmp_path, entry("clip/clip.000007.exr", 7)).close()
    assert not Manifest(tmp_path).everything().failures


def test_names_with_letters_that_patterns_know_have_parts_of_their_own(tmp_path):
    manifest = opened(tmp_path, entry("[ab]*?/x.exr"), entry("a/x.exr", sha256="a"))
    manifest.forget()
    assert "sha256" not in (manifest.entry(tmp_path / "[ab]*?" / "x.exr") or {})


def test_two_processes_may_take_over_a_manifest_of_one_file_at_once(tmp_path, monkeypatch):
    earlier = tmp_path / EARLIER
    earlier.write_text(json.dumps(entry("a.exr", settings="abc")) + "\n")
    flush = Manifest.flush

    def beaten(self: Manifest) -> None:
        flush(self)
        earlier.rename(earlier.with_suffix(".old"))

    monkeypatch.setattr(Manifest, "flush", beaten)  # the other one is done first
    manifest = Manifest.read(tmp_path)
    assert manifest.entry(tmp_path / "a.exr") is not None


def test_a_part_that_cannot_be_read_fails_its_own_outputs_alone(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.new("RGB", (24, 16), "grey").save(tmp_path / "in" / folder / "x.png")
    (tmp_path / "out" / MANIFEST / "a" / "pictures@x.jsonl").mkdir(parents=True)
    told = [*convert(tmp_path / "in", tmp_path / "out", ConvertOptions(method="clip", recursive=True))]
    (failed,) = (event for event in told if isinstance(event, Failed))
    (done,) = (event for event in told if isinstance(event, Done))
    assert "cannot be read" in failed.message and done.output == tmp_path / "out" / "b" / "x.exr"
