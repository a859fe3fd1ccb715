"""What is made for screens, in a real browser."""

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldr2hdr_cli.media.avif import write_avif
from ldr2hdr_cli.media.colour import REC709
from ldr2hdr_cli.media.display_light import pq, to_rec2020
from ldr2hdr_cli.media.hdr_video import VideoSettings, join, picture, write_segment
from ldr2hdr_cli.media.ultrahdr import write_ultrahdr

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
GREY = 0.18  # linear; 118 in sRGB
PAGE = """<!doctype html><style>img, video { dynamic-range-limit: no-limit }</style><body><script>
const files = FILES;
const middle = async (source, width, height) => {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(source, 0, 0);
  return [width, height, ...canvas.getContext("2d").getImageData(width / 4, height / 2, 1, 1).data.slice(0, 3)];
};
(async () => {
  const said = { css: CSS.supports("dynamic-range-limit", "no-limit") };
  for (const [name, address] of Object.entries(files)) {
    try {
      const image = document.body.appendChild(new Image());
      await new Promise((done, failed) => { image.onload = done; image.onerror = failed; image.src = address; });
      said[name] = await middle(image, image.naturalWidth, image.naturalHeight);
    } catch (error) { said[name] = String(error); }
  }
  const video = document.body.appendChild(document.createElement("video"));
  const tell = () => {
    said.film = [video.videoWidth, video.videoHeight, video.error && video.error.message];
    document.body.dataset.said = JSON.stringify(said);
  };
  video.onloadedmetadata = video.onloadeddata = video.onerror = tell;
  tell();
  video.muted = true;
  video.src = FILM;
})();
</script>"""


def address(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium binary on this machine")
def test_chromium_shows_ultrahdr_avif_and_av1_in_hdr10(tmp_path):
    linear = np.full((64, 96, 3), GREY, np.float32)
    linear[:, 48:] = 3.0
    codes = np.full((64, 96, 3), 118, np.uint8)
    codes[:, 48:] = 255
    Image.fromarray(codes).save(tmp_path / "photo.jpg", quality=95)
    write_ultrahdr(tmp_path / "ultrahdr.jpg", linear, tmp_path / "photo.jpg")
    write_avif(tmp_path / "hdr.avif", linear, matrix=to_rec2020(REC709))
    how = VideoSettings(codec="libsvtav1")
    write_segment(tmp_path / "part.mp4", [(picture(linear, how), None)] * 5, how)
    join(tmp_path / "film.mp4", [tmp_path / "part.mp4"], how)
    files = {
        "ultrahdr": address(tmp_path / "ultrahdr.jpg", "image/jpeg"),
        "avif": address(tmp_path / "hdr.avif", "image/avif"),
    }
    page = tmp_path / "page.html"
    film = json.dumps(address(tmp_path / "film.mp4", "video/mp4"))
    page.write_text(PAGE.replace("FILES", json.dumps(files)).replace("FILM", film))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--disable-background-networking", "--no-first-run", "--dump-dom", "--virtual-time-budget=20000"]
    dom = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'data-said="([^"]*)"', dom)
    assert found, dom[-500:]
    said = json.loads(html.unescape(found[1]))
    assert said["css"], "this Chromium has no dynamic-range-limit"
    assert said["ultrahdr"] == [96, 64, 118, 118, 118]  # on a screen without headroom the base is what is seen
    width, height, *grey = said["avif"]
    raw = float(pq(np.array(GREY * 203.0))) * 255  # of a browser that does not know what PQ is
    assert (width, height) == (96, 64)
    assert max(grey) - min(grey) <= 2
    assert abs(grey[0] - raw) > 10
    assert said["film"] == [96, 64, None]
