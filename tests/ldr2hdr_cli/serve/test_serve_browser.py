"""The page of `ldr2hdr serve` as a person uses it: over HTTP, with the real network, in, a real Chromium."""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

from ldr2hdr_cli.serve import command
from ldr2hdr_cli.serve.app import make_app
from ldr2hdr_cli.serve.jobs import Jobs
from ldr2hdr_cli.serve.options import ServeOptions

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 120  # seconds, on a machine that has other work
TOKEN = "a token of the test"


class Browser:
    """A headless Chromium, spoken to in the DevTools protocol through its own pipe."""

    def __init__(self, profile: Path) -> None:
        (read, self._out), (self._in, write) = os.pipe(), os.pipe()
        quiet = "--disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync"
        command = f'exec "$0" --headless --no-sandbox {quiet} --hide-scrollbars '
        command += f'--user-data-dir="$1" --remote-debugging-pipe about:blank 3<&{read} 4>&{write}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, str(CHROMIUM), str(profile)], pass_fds=(read, write), stderr=subprocess.DEVNULL
        )
        os.close(read)
        os.close(write)
        self._number, self._session, self._rest = 0, "", b""
        self._watch = threading.Timer(PATIENCE, self._process.kill)  # a browser that says nothing ends the reads below
        self._watch.start()
        page = next(one for one in self.tell("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self.tell("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        self.errors: list[str] = []
        self.tell("Runtime.enable")
        self.tell("Log.enable")

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._received()).get("id") != self._number:
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(json.dumps(answer["params"]))
        assert "error" not in answer, answer
        return answer["result"]

    def _received(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._in, 2**20)
            assert piece, "the browser has gone"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def ask(self, expression: str) -> Any:
        answer = self.tell("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        end = time.monotonic() + PATIENCE
        while not self.ask(expression):
            assert time.monotonic() < end, f"{expression} never came true: {self.errors}"
            time.sleep(0.05)

    def resize(self, width: int, height: int) -> None:
        self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def open(self, address: str) -> None:
        self.tell("Page.navigate", url=address)
        self.until("document.body?.dataset.ready === '1'")

    def choose(self, selector: str, *files: Path) -> None:
        root = self.tell("DOM.getDocument")["root"]["nodeId"]
        node = self.tell("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.tell("DOM.setFileInputFiles", nodeId=node, files=list(map(str, files)))

    def move(self, selector: str, value: float) -> None:
        """A slider."""
        where = json.dumps(selector)
        self.ask(
            f"(s => {{ s.value = {value}; s.dispatchEvent(new Event('input')); }})(document.querySelector({where}))"
        )

    def painted(self, selector: str) -> np.ndarray:
        """What is on the screen where an element is, uint8 H×W×3."""
        found = f"document.querySelector({json.dumps(selector)})"
        box = self.ask(f"{found}.scrollIntoView({{ block: 'center' }}); {found}.getBoundingClientRect().toJSON()")
        data = base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"])
        screen = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        return screen[round(box["top"]) : round(box["bottom"]), round(box["left"]) : round(box["right"])]

    def close(self) -> None:
        self._watch.cancel()
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium binary on this machine")
def test_a_picture_is_dropped_converted_and_looked_at(tmp_path: Path) -> None:
    """On a screen and on a phone; the page takes the server's token from its address first, and then asks for it."""
    codes = np.full((96, 128, 3), 60, np.uint8)
    codes[32:64, 8:120] = 255  # across, so that source and result show some of it
    Image.fromarray(codes).save(tmp_path / "lamp.png")
    options = ServeOptions(token=TOKEN, device="cpu")
    jobs = Jobs(tmp_path / "data", options)
    with closing(Browser(tmp_path / "profile")) as browser, socket.create_server(("127.0.0.1", 0)) as listener:
        jobs.start()
        try:
            with command.answering(make_app(jobs, options), listener):
                address = f"http://127.0.0.1:{listener.getsockname()[1]}"
                on_screen(browser, address, tmp_path / "lamp.png")
                on_a_phone(browser, address)
        finally:
            jobs.end()


def on_screen(browser: Browser, address: str, picture: Path) -> None:
    browser.resize(1400, 900)
    browser.open(f"{address}/#token={TOKEN.replace(' ', '%20')}")
    assert browser.ask("location.hash") == ""  # else it would stand in the history
    browser.choose("#files", picture)
    browser.until("document.querySelector('.job')?.dataset.state === 'done'")
    browser.until("document.querySelector('article')?.dataset.ev === '-2'")
    before = browser.painted(".view")
    browser.move("#ev", -4)
    browser.until("document.querySelector('article').dataset.ev === '-4'")
    darker = browser.painted(".view")
    browser.move(".divide", 100)
    source = browser.painted(".view")
    browser.move(".divide", 0)
    result = browser.painted(".view")
    assert browser.errors == [] and browser.ask("document.documentElement.scrollWidth <= innerWidth")
    # Clipped white is 0.25 and 0.0625 of white in the source; in the result the network has put light there.
    assert lamp(before, 0.2) == pytest.approx(srgb(2**-2), abs=3) and lamp(before, 0.8) > srgb(2**-2) + 5
    assert lamp(darker, 0.2) == pytest.approx(srgb(2**-4), abs=3) and lamp(darker, 0.8) > srgb(2**-4) + 5
    assert lamp(source, 0.2) == pytest.approx(lamp(source, 0.8), abs=2)
    assert lamp(result, 0.2) > lamp(source, 0.2) + 5


def on_a_phone(browser: Browser, address: str) -> None:
    browser.ask("sessionStorage.clear()")
    browser.resize(390, 844)
    browser.open(f"{address}/?")  # another address than before: it is loaded anew
    assert browser.ask("[$('ask').hidden, $('send').hidden].join()") == "false,true"
    browser.ask(f"$('token').value = {json.dumps(TOKEN)}; document.querySelector('#ask button').click()")
    browser.until("document.querySelector('article')?.dataset.ev === '-2'")
    assert browser.ask("[$('ask').hidden, $('send').hidden].join()") == "true,false"
    assert lamp(browser.painted(".view"), 0.2) == pytest.approx(srgb(2**-2), abs=3)
    assert browser.ask("document.documentElement.scrollWidth <= innerWidth")


def lamp(seen: np.ndarray, left: float) -> float:
    """How bright it is at a place across the picture, away from the handle in the middle."""
    height, width = seen.shape[:2]
    rows = slice(round(0.36 * height), round(0.44 * height))
    return float(seen[rows, round((left - 0.05) * width) : round((left + 0.05) * width)].mean())


def srgb(light: float) -> int:
    """Code of a linear value (IEC 61966-2-1)."""
    return round(255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055))
