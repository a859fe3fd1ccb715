"""`ldr2hdr view`: the page over a finished job, as a file and in a real browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ldr2hdr_cli.app import app
from ldr2hdr_cli.convert.manifest import EARLIER, MANIFEST
from ldr2hdr_cli.media.exr import read_exr, write_exr
from ldr2hdr_cli.view.page import choose
from ldr2hdr_cli.view.pictures import STOPS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = '<img src=x onerror="document.body.dataset.bad=1">&amp;'


def photo(share: float, width: int = 64, height: int = 48) -> np.ndarray:
    """Its left part clipped."""
    codes = np.random.default_rng(0).integers(60, 140, (height, width, 3), dtype=np.uint8)
    codes[:, : round(share * width)] = 255
    return codes


def run(*words: object, status: int = 0) -> str:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == status, done.output
    return done.output


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, one of them damaged, and a clip of seven frames; converted without the network."""
    place = tmp_path_factory.mktemp("job")
    sources = place / "in"
    sources.mkdir()
    Image.fromarray(photo(0.05)).save(sources / "little.png")
    Image.fromarray(photo(0.5)).save(sources / f"much {HOSTILE.replace('/', '')}.png")
    (sources / "broken.png").write_bytes((sources / "little.png").read_bytes()[:900])
    with av.open(str(sources / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for index in range(7):
            picture = np.full((48, 64, 3), 20 + 30 * index, np.uint8)  # what tells the frames apart
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    run("convert", sources, "-o", place / "out", "--method", "clip", "--transfer", "srgb", status=1)
    hdr, _, attributes = read_exr(place / "out" / "little.exr")
    hdr[:, :3] = 4.0  # as a network would
    write_exr(place / "out" / "little.exr", hdr, attributes={"chromaticities": attributes["chromaticities"]})
    return place


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(job: Path) -> Path:
    said = run("view", job / "out")
    path = job / "out" / "ldr2hdr-view" / "index.html"
    assert said.replace("\n", "") == f"{path}: 7 results, 1 failed"
    return path


def pictures(page: Path, name: str, kind: str) -> list[np.ndarray]:
    """Of one result, at each of STOPS."""
    (source,) = [
        str(image["src"])
        for image in Page(page).all("img")
        if str(image["alt"]).endswith(name) and kind in str(image["src"])
    ]
    found = [page.parent / re.sub(r"\d\.webp$", f"{index}.webp", source) for index in range(len(STOPS))]
    return [np.asarray(Image.open(path), np.float32) / 255 for path in found]


def test_pictures_show_source_and_result_at_their_exposures(page: Path) -> None:
    source = photo(0.05)[:, 8:] / np.float32(255)
    before, after = pictures(page, "little.exr", "before"), pictures(page, "little.exr", "after")
    for index, stops in enumerate(STOPS):
        light = np.where(source <= 0.04045, source / 12.92, ((source + 0.055) / 1.055) ** 2.4) * 2.0**stops
        expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        for shown in (before[index], after[index]):  # WebP at quality 85 keeps noise to a few codes
            assert np.abs(shown[:, 8:].mean() - expected.mean()) < 0.02
    # The lamp is seen at −2 stops, where the source is grey.
    assert after[1][:, :2].mean() > before[1][:, :2].mean() + 0.05


def test_order_facts_and_marks(page: Path) -> None:
    found = Page(page)
    cards = found.all("article")
    assert [str(card["data-name"]).split("/")[-1][:6] for card in cards[:3]] == ["broken", "much <", "little"]
    assert "failed" in str(cards[0]["class"]) and "data-marked" in cards[1]
    assert float(str(cards[1]["data-clipped"])) == pytest.approx(0.5, abs=0.01)
    assert "50.0 % clipped" in found.text and "most of that can only be guessed" in found.text
    (little,) = [card for card in cards if card["data-name"] == "little.exr"]
    assert float(str(little["data-peak"])) == 4
    assert "it is damaged or cut off" in found.text


def test_a_clip_shows_frames_from_its_first_to_its_last(page: Path) -> None:
    assert re.findall(r"frame (\d+), one of 5 shown of 7", Page(page).text) == ["1", "3", "4", "5", "7"]
    for number in (1, 4, 7):  # each beside its own source
        (before, *_), (after, *_) = (pictures(page, f"clip.{number:06d}.exr", kind) for kind in ("before", "after"))
        assert abs(before.mean() - (20 + 30 * (number - 1)) / 255) < 0.01
        assert abs(after.mean() - before.mean()) < 0.01


def test_names_stay_text_and_everything_has_a_label(page: Path) -> None:
    found = Page(page)
    assert all(str(image["src"]).startswith("pictures/") and image["alt"] for image in found.all("img"))
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert not found.all("link") and len(found.all("script")) == 1 and found.all("html")[0]["lang"] == "en"
    assert all((page.parent / str(image["src"])).is_file() for image in found.all("img"))
    for control in found.all("input") + found.all("select"):
        assert control.get("aria-label") or control.get("id") in ("ev", "order", "marked")  # which have a <label>


def test_sources_that_are_gone_and_results_that_are_damaged(tmp_path: Path) -> None:
    for name in ("gone", "rotten", "changed"):
        Image.fromarray(photo(0.1)).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    run("convert", tmp_path / "*.png", "-o", out, "--method", "clip")
    (tmp_path / "gone.png").unlink()
    (out / "rotten.exr").write_bytes(b"no EXR")
    Image.fromarray(photo(0.2)).save(tmp_path / "changed.png")
    run("view", out, "-o", tmp_path / "page")
    found = Page(tmp_path / "page" / "index.html")
    assert not (out / "ldr2hdr-view").exists()
    assert "The source is gone: only the result is shown." in found.text
    assert "The source has changed since." in found.text and "rotten.exr is damaged" in found.text
    kinds = [re.search(r"(after|before)", str(image["src"]))[1] for image in found.all("img")]  # type: ignore[index]
    assert sorted(kinds) == ["after", "after", "before"]
    # The manifest knows how much was clipped, of what is gone too.
    assert [round(float(str(card["data-clipped"])), 2) for card in found.all("article")] == [-1, 0.09, 0.09]


def test_what_failed_is_forgotten_when_it_is_converted(tmp_path: Path) -> None:
    source, out = tmp_path / "a.png", tmp_path / "out"
    source.write_bytes(b"no picture")
    for _ in range(2):
        run("convert", source, "-o", out, "--method", "clip", status=1)
    assert (
        sum(part.read_text().count('"failed"') for part in (out / MANIFEST).rglob("*.jsonl")) == 1
    )  # the second time it is known
    run("view", out)
    assert len(Page(out / "ldr2hdr-view" / "index.html").all("article")) == 1
    Image.fromarray(photo(0.1)).save(source)
    run("convert", source, "-o", out, "--method", "clip")
    run("view", out)
    (card,) = Page(out / "ldr2hdr-view" / "index.html").all("article")
    assert card["data-name"] == "a.exr" and "class" not in card


def test_the_page_leaves_no_pictures_of_what_is_no_longer_there_and_is_no_source(tmp_path: Path) -> None:
    """`convert photos -o photos -r` must not convert the pictures of the page."""
    for name in ("a", "b"):
        Image.fromarray(photo(0.1)).save(tmp_path / f"{name}.png")
    run("convert", tmp_path, "-o", tmp_path, "--method", "clip")
    run("view", tmp_path)
    made = len(list((tmp_path / "ldr2hdr-view" / "pictures").iterdir()))
    assert made == 2 * 2 * len(STOPS)
    run("convert", tmp_path, "-o", tmp_path, "-r", "--method", "clip")
    assert not list(tmp_path.glob("ldr2hdr-view/**/*.exr"))
    (part,) = (tmp_path / MANIFEST).rglob("*.jsonl")
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(line for line in lines if '"b.exr"' not in line))
    run("view", tmp_path)
    assert len(list((tmp_path / "ldr2hdr-view" / "pictures").iterdir())) == made / 2


def test_manifests_of_older_versions_and_wider_primaries(tmp_path: Path) -> None:
    """Without index, clipped and settings; a result in Display P3 is shown as it looks in sRGB."""
    colour = np.full((8, 8, 3), (0.5, 0.25, 0.125), np.float32)
    p3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290)
    write_exr(tmp_path / "a.exr", colour, attributes={"chromaticities": p3})
    (tmp_path / EARLIER).write_text(json.dumps({"output": "a.exr", "source": "/gone.png", "frame": None}) + "\n")
    run("view", tmp_path)
    (shown, *_) = pictures(tmp_path / "ldr2hdr-view" / "index.html", "a.exr", "after")
    # By hand: P3-D65 to Rec.709 (the rows of the product of SMPTE RP 177's matrices).
    to_709 = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    light = to_709 @ (0.5, 0.25, 0.125)
    np.testing.assert_allclose(shown[4, 4], 1.055 * light ** (1 / 2.4) - 0.055, atol=0.02)


def test_frames_are_chosen_clip_by_clip() -> None:
    entries = {f"clip/clip.{n:06d}.exr": {"frame": n} for n in range(1, 241)}
    entries |= {f"plate.{n}.exr": {"frame": n} for n in (9, 10, 11)} | {"photo2.exr": {"frame": None}}
    chosen = [(one.name, one.about) for one in choose(entries)]
    assert [name[-8:-4] for name, _ in chosen[:5]] == ["0001", "0061", "0121", "0180", "0240"]
    assert chosen[0][1] == "frame 1, one of 5 shown of 240"
    assert chosen[5:8] == [(f"plate.{n}.exr", f"frame {n}") for n in (9, 10, 11)]
    assert chosen[8:] == [("photo2.exr", "")]


def test_a_directory_without_a_job_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["view", str(tmp_path)])
    assert done.exit_code != 0 and "holds no job" in str(done.exception)


HANDS = """<script>
(async () => {
  const press = key => document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const images = [...document.querySelectorAll("img")], said = [];
  const loaded = async () => {
    for (const image of images) {
      image.loading = "eager";
      while (!image.complete) await new Promise(done => setTimeout(done, 20));
    }
    return images.filter(image => image.naturalWidth === 64).length;
  };
  const at = () => images[0].getAttribute("src").slice(-6, -5);
  said.push(document.body.dataset.ev, at(), await loaded());
  press("-"); press("-");
  said.push(document.body.dataset.ev, at(), await loaded());
  const ev = document.getElementById("ev");
  ev.value = ev.max; ev.dispatchEvent(new Event("input"));
  said.push(document.body.dataset.ev, at(), document.getElementById("shown").textContent);
  press("n"); press("n");
  const slider = document.activeElement;
  said.push([...document.querySelectorAll(".divide")].indexOf(slider));
  slider.value = 100; slider.dispatchEvent(new Event("input"));
  said.push(slider.parentElement.style.getPropertyValue("--at"));
  document.getElementById("marked").click();
  said.push([...document.querySelectorAll("article")].filter(card => card.offsetParent !== null).length);
  document.getElementById("order").value = "name";
  document.getElementById("order").dispatchEvent(new Event("change"));
  said.push(document.querySelector("article").dataset.name.slice(-10));
  said.push(document.documentElement.scrollWidth <= innerWidth);
  document.body.dataset.said = said.join("; ");
})();
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium binary on this machine")
@pytest.mark.parametrize("size", ["1400,900", "390,844"])
def test_keys_sliders_and_pictures_in_a_browser(page: Path, tmp_path: Path, size: str) -> None:
    """From file://, on a screen and on a phone."""
    copy = tmp_path / "a page #1"
    shutil.copytree(page.parent, copy)
    (copy / "index.html").write_text(page.read_text("utf-8").replace("</body>", HANDS + "</body>"), "utf-8")
    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command = [str(CHROMIUM), "--headless", "--no-sandbox", *quiet, f"--window-size={size}", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}"]
    for budget in (5_000, 20_000, 60_000):  # ms of the browser's own time, which runs ahead on a busy machine
        done = subprocess.run(
            [*command, f"--virtual-time-budget={budget}", (copy / "index.html").as_uri()],
            capture_output=True, text=True, timeout=90, check=True,
        )  # fmt: skip
        body = dict(re.findall(r'data-([a-z]+)="([^"]*)"', re.search(r"<body[^>]*>", done.stdout)[0]))  # type: ignore[index]
        if "said" in body:
            break
    assert "bad" not in body and body["ready"] == "1"
    said = body["said"].split("; ")
    assert said[:6] == ["-2", "1", "14", "-6", "3", "14"]  # seven results, each with its source
    assert said[6:9] == ["0", "0", "0 stops"]
    assert said[9:13] == ["1", "1", "2", "broken.png"]  # the second slider, all source, two marked
    assert said[13] == "true"  # nothing to scroll sideways
