"""The page: its pictures survive their encoding, and its script runs in a real browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldr2hdr_cli.evaluation.compare import Result, Scoring, compare
from ldr2hdr_cli.evaluation.page import Album, build_page, decode_layer, encode_layer
from ldr2hdr_cli.evaluation.protocol import Case
from ldr2hdr_cli.evaluation.summary import summarise
from ldr2hdr_cli.evaluation.verdict import verdict

HOSTILE = "</script><img src=x onerror=\"document.body.dataset.bad='1'\"><b>&amp;"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def scene(name: str, exposure: str = "share", seed: int = 0, side: int = 32) -> Case:
    truth = np.exp2(np.random.default_rng(seed).uniform(-4, 2, (side, side, 3))).astype(np.float32)
    truth[side // 2 - 2 : side // 2 + 3, side // 2 - 2 : side // 2 + 3] = (4.0, 2.0, 0.25)  # what tests look at
    ldr = np.rint(np.sqrt(np.minimum(truth, 1)) * 255).astype(np.float32) / 255
    return Case(name, name, exposure, 4.0, ldr, truth, truth >= 1)


def compared(cases: list[Case], names: tuple[str, str] = ("clip", "double")) -> list[Result]:
    methods = {names[0]: lambda case: case.ldr**2, names[1]: lambda case: np.where(case.clipped, 2, case.ldr**2)}
    return list(compare(cases, methods, Scoring(cvvdp=False)))


def page_of(results: list[Result], limit: int = 24, **more: Any) -> str:
    album, rows = Album(limit), []
    for result in results:
        album.offer(result)
        rows.extend(result.rows)
    summary = summarise(rows)
    return build_page(album, summary, verdict(rows, summary), {"seed": 0, "hdr": HOSTILE}, **more)


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999), st.floats(-17.5, 15.5))
def test_layers_survive_within_a_hundredth_of_a_stop(height: int, width: int, seed: int, stops: float) -> None:
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    linear = np.exp2(rng.uniform(min(stops, 0), max(stops, 0), (height, width, 3))).astype(np.float32)
    back = decode_layer(encode_layer(linear, source), source)
    assert back.shape == linear.shape
    assert np.abs(np.log2(back / linear)).max() <= 0.5 / 64 + 1e-6


def test_black_stays_black_and_suns_stay_bright() -> None:
    source = np.array([[[0, 255, 128]]], np.uint8)
    back = decode_layer(encode_layer(np.array([[[0.0, 2.0**20, 0.0]]], np.float32), source), source)
    assert back.tolist() == [[[0.0, 2.0**16, 0.0]]]
    back = decode_layer(encode_layer(np.array([[[2.0**20, 0.0, 2.0**20]]], np.float32), source), source)
    assert back.tolist() == [[[2.0**16, 0.0, 2.0**16]]]  # a sun on black, the widest difference there is


class Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_asks_nothing_of_the_network_and_names_stay_text() -> None:
    parser = Parser()
    parser.feed(page_of(compared([scene(HOSTILE), scene("two", seed=1)], (HOSTILE, "{{data}} two"))))
    tags = [tag for tag, _ in parser.found]
    assert tags.count("script") == 2 and tags.count("img") == 1 and "link" not in tags and "b" not in tags
    for _, attributes in parser.found:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("data:", "#"))


def test_pictures_are_spread_over_scenes_and_kinds() -> None:
    album = Album(4)
    for index in range(6):
        for kind in ("share", "share", "mild"):
            case = scene(f"s{index}", kind, side=16)
            album.offer(Result(case, {}, []))
    plates = album.pictures()
    assert [plate.exposure for plate in plates] == ["share", "share", "mild", "mild"]
    assert len({plate.name for plate in plates[:2]}) == len({plate.name for plate in plates[2:]}) == 2


def test_a_page_keeps_to_its_budget() -> None:
    results = compared([scene(f"s{index}", seed=index, side=96) for index in range(3)])
    empty = len(page_of(results, limit=0))
    whole = len(page_of(results))
    small = len(page_of(results, budget=60_000))
    assert whole - empty > 150_000
    assert small - empty < 75_000


def dump(page: Path, state: str, profile: Path, wanted: str = 'data-ready="1"') -> str:
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1400,900"]
    command = [str(CHROMIUM), "--headless", "--no-sandbox", *quiet, f"--user-data-dir={profile}", "--dump-dom"]
    address = f"{page.as_uri()}#{state}"
    for budget in (
        5_000,
        20_000,
        100_000,
        1_000_000,
    ):  # ms of the browser's own time, which runs ahead on a busy machine
        command_now = [*command, f"--virtual-time-budget={budget}", address]
        dom = subprocess.run(command_now, capture_output=True, text=True, timeout=60, check=True).stdout
        if wanted in body_tag(dom):
            return dom
    return pytest.fail(f"the page's script never said {wanted}: {body_tag(dom)}")


def body_tag(dom: str) -> str:
    match = re.search(r"<body[^>]*>", dom)
    return match[0] if match else ""


def body(dom: str) -> dict[str, str]:
    return dict(re.findall(r'data-([a-z]+)="([^"]*)"', body_tag(dom)))


def middles(dom: str) -> list[tuple[int, ...]]:
    """What each tile shows in its middle, by the page's own account: source, truth, then the methods."""
    found = re.findall(r'data-middle="([\d,]+)"', dom)
    return [tuple(int(value) for value in entry.split(",")) for entry in found]


def shown(linear: tuple[float, ...], stops: float) -> list[int]:
    """sRGB codes of a linear colour (IEC 61966-2-1)."""
    values = np.minimum(np.array(linear) * 2.0**stops, 1)
    return np.rint(255 * np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)).tolist()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium binary on this machine")
def test_the_page_shows_pictures_at_the_exposure_asked_for(tmp_path: Path) -> None:
    page = tmp_path / "a page #1.html"
    page.write_text(page_of(compared([scene("one"), scene(HOSTILE, seed=1)], (HOSTILE, "double"))))
    dom = dump(page, "ev=-3&picture=1", tmp_path / "profile")
    state = body(dom)
    assert state == {"ready": "1", "picture": "1", "ev": "-3", "view": "picture"}  # and no `bad`
    order = ["clip" if "double" in name else "double" for name in re.findall(r"<th class=\"name\">(.*?)</th>", dom)[1:]]
    truth, clipped, doubled = (4.0, 2.0, 0.25), (1.0, 1.0, 0.25), (2.0, 2.0, 0.25)
    expected = [clipped, truth, doubled, clipped]  # source, truth, then the methods, best first
    assert order == ["clip", "double"]  # `double` is the first row
    for found, linear in zip(middles(dom), expected, strict=True):
        np.testing.assert_allclose(found, shown(linear, -3), atol=1)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium binary on this machine")
def test_the_page_shows_errors_in_stops(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(page_of(compared([scene("one")])))
    dom = dump(page, "ev=0&view=difference&hide=1", tmp_path / "profile")
    assert body(dom)["view"] == "difference"
    source, truth, double = middles(dom)  # the second method is hidden
    np.testing.assert_allclose(source, shown((1, 1, 0.25), 0), atol=1)
    np.testing.assert_allclose(truth, shown((4, 2, 0.25), 0), atol=1)
    assert double[2] > double[0] + 20  # blue: `double` lies at 2 where the truth is 4 and 2


HANDS = """<script>
(async () => {
  const drawn = async () => {
    do await new Promise(done => setTimeout(done, 20)); while (document.body.dataset.ready !== "1");
  };
  const press = key => window.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
  await drawn();
  const said = [];
  for (const key of ["ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowDown", "d"]) { press(key); await drawn(); }
  said.push(document.body.dataset.ev, document.body.dataset.picture, document.body.dataset.view, location.hash);
  document.getElementById("slider").value = 2;
  document.getElementById("slider").dispatchEvent(new Event("input"));
  document.getElementById("methods").children[0].click();
  await drawn();
  said.push(document.body.dataset.ev, document.querySelectorAll("figure[hidden]").length);
  const view = document.querySelector(".view"), box = view.getBoundingClientRect();
  const at = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2, bubbles: true, cancelable: true };
  view.dispatchEvent(new PointerEvent("pointermove", at));
  said.push(...[...document.querySelectorAll("figcaption span")].slice(0, 2).map(node => node.textContent));
  view.dispatchEvent(new WheelEvent("wheel", { ...at, deltaY: -400 }));
  said.push(["--zoom", "--x"].map(name => document.getElementById("grid").style.getPropertyValue(name)).join(" "));
  document.body.dataset.said = said.join("; ");
})();
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium binary on this machine")
def test_keys_slider_pointer_and_wheel_do_what_the_page_says(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(page_of(compared([scene("one"), scene("two", seed=1)])).replace("</body>", HANDS + "</body>"))
    said = body(dump(page, "", tmp_path / "profile", "data-said"))["said"].split("; ")
    assert said[:4] == ["-1.5", "1", "difference", "#picture=1&amp;ev=-1.5&amp;view=difference"]
    assert said[4:6] == ["2", "1"]
    # Luminance of (4, 2, 0.25) is 2.299, 1.2 stops over white; that of the source, (1, 1, 0.25), is 0.946.
    assert said[6:8] == ["−0.1 stops, off by −1.3", "+1.2 stops"]
    zoom, left = said[8].removesuffix("%").split(" ")
    assert (float(zoom), float(left)) == (2, pytest.approx(-50, abs=0.5))  # twice as large about the middle
