"""`ldr2hdr serve` over HTTP: jobs, their results and previews, what is refused, what is kept, what a restart finds.

The application runs in this process, but for one test; most pictures are converted by the operator `clip`, at once.
"""

import asyncio
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")
pytest.importorskip("httpx")
from starlette.testclient import TestClient

from ldr2hdr_cli.convert.claims import CLAIMS
from ldr2hdr_cli.convert.manifest import Manifest, RunError
from ldr2hdr_cli.convert.network import kept, reconstructors
from ldr2hdr_cli.convert.run import convert
from ldr2hdr_cli.options import ConvertOptions
from ldr2hdr_cli.serve import command
from ldr2hdr_cli.serve.app import make_app
from ldr2hdr_cli.serve.asked import file_name
from ldr2hdr_cli.serve.jobs import Job, Jobs
from ldr2hdr_cli.serve.options import ServeOptions
from model import MaskedUNet, NetworkConfig, save_network
from model.errors import Ldr2hdrError
from tests.conftest import write_clip

CLIP = {"method": "clip", "transfer": "srgb"}
HERE = "http://127.0.0.1"


def photo(code: int = 128, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Grey, its left quarter clipped."""
    codes = np.full((*size, 3), code, np.uint8)
    codes[:, : size[1] // 4] = 255
    return codes


def png(codes: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(codes).save(data, "PNG")
    return data.getvalue()


def parts(*files: tuple[str, bytes]) -> list[tuple[str, Any]]:
    return [("files", file) for file in files]


def ended(client: TestClient, id: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while (job := client.get(f"/jobs/{id}").json())["finished"] is None:
        assert time.monotonic() < end, job
        time.sleep(0.02)
    return job


def upload(client: TestClient, *files: tuple[str, bytes], options: dict[str, Any] = CLIP) -> dict[str, Any]:
    answer = client.post("/jobs", files=parts(*files), data={"options": json.dumps(options)})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    return answer.json()


def refusal(answer: Any, status: int) -> str:
    """The one sentence that it says."""
    assert answer.status_code == status, answer.text
    sentence = answer.json()["detail"]
    assert isinstance(sentence, str) and sentence.endswith(".") and "\n" not in sentence
    return sentence


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a picture, and links out of it."""
    place = tmp_path_factory.mktemp("serve")
    (place / "root" / "more").mkdir(parents=True)
    (place / "outside").mkdir()
    for path in ("root/a.png", "root/more/b.png", "outside/secret.png"):
        Image.fromarray(photo()).save(place / path)
    (place / "root" / "link.png").symlink_to(place / "outside" / "secret.png")
    (place / "root" / "folder").symlink_to(place / "outside")
    return place


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that is small, so that servers start at once."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_network(MaskedUNet(NetworkConfig(base_channels=2, depth=3)), path)
    return path


@pytest.fixture(scope="module")
def client(place: Path, weights: Path) -> Iterator[TestClient]:
    options = ServeOptions(root=[place / "root"], device="cpu", weights=weights, max_pictures=3, max_upload="400K")
    jobs = Jobs(place / "data", options)
    jobs.start()
    yield TestClient(make_app(jobs, options), HERE)
    jobs.end()


@pytest.fixture
def idle(tmp_path: Path, weights: Path) -> Iterator[Callable[..., tuple[Jobs, TestClient]]]:
    """idle(option=...) → jobs that no worker takes, and a client."""
    made: list[Jobs] = []

    def make(data: Path = tmp_path / "data", **more: Any) -> tuple[Jobs, TestClient]:
        options = ServeOptions(**{"device": "cpu", "weights": weights, **more})
        made.append(Jobs(data, options))
        return made[-1], TestClient(make_app(made[-1], options), HERE)

    yield make
    for jobs in made:
        jobs.end()


def test_results_are_those_of_convert(client: TestClient, place: Path) -> None:
    files = [("one.png", png(photo())), ("ldr2hdr-two.png", png(photo(60))), ("no picture.png", b"nothing")]
    job = ended(client, upload(client, *files)["id"])
    assert (job["state"], job["total"]) == ("done", 3)
    assert job["counts"] == {"note": 2, "done": 2, "failed": 1}
    assert [one["name"] for one in job["results"]] == ["ldr2hdr-two.exr", "one.exr"] and job["result_count"] == 2
    (place / "in").mkdir()
    for name, data in files[:2]:
        (place / "in" / name).write_bytes(data)
    list(convert(place / "in", place / "out", ConvertOptions(**CLIP, device="cpu")))
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/jobs/{job['id']}/results").content))
    assert archive.testzip() is None and archive.namelist() == ["ldr2hdr-two.exr", "one.exr"]
    for name in archive.namelist():
        answer = client.get(f"/jobs/{job['id']}/results/{name}")
        assert answer.content == archive.read(name) == (place / "out" / name).read_bytes()
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'


def test_events_tell_what_became_of_each_file_and_no_folder_of_the_server(client: TestClient, place: Path) -> None:
    job = ended(client, upload(client, ("a b.png", png(photo())), ("broken.png", png(photo())[:60]))["id"])
    told = client.get(f"/jobs/{job['id']}/events").json()
    kinds = [(event["event"], event.get("source")) for event in told["events"]]
    assert kinds == [("note", "a b.png"), ("done", "a b.png"), ("failed", "broken.png")]
    assert told["events"][1]["output"] == "a b.exr" and told["events"][1]["clipped"] == 0.25
    assert told["events"][2]["message"].startswith("broken.png cannot be read")
    assert str(place) not in json.dumps([told, job])
    rest = client.get(f"/jobs/{job['id']}/events", params={"since": 2}).json()
    assert rest == {"events": told["events"][2:], "next": 3}
    assert any(one["id"] == job["id"] for one in client.get("/jobs").json())


def srgb(light: float) -> int:
    """Code of a linear value (IEC 61966-2-1)."""
    return round(255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("exposure", [0, -3, 1.5])
def test_previews_are_shown_at_their_exposure(client: TestClient, exposure: float) -> None:
    job = ended(client, upload(client, ("grey.png", png(photo())))["id"])
    assert job["shown"] == [{"name": "grey.exr", "about": "", "clipped": 0.25}]
    light = ((128 / 255 + 0.055) / 1.055) ** 2.4 * 2.0**exposure
    for of in ("result", "source"):
        how = {"exposure": exposure, "of": of, "format": "png"}
        answer = client.get(f"/jobs/{job['id']}/preview/grey.exr", params=how)
        picture = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert answer.headers["content-type"] == "image/png" and picture.shape == (48, 64, 3)
        assert np.abs(picture[:, 32:].astype(int) - srgb(light)).max() <= 1
        white = srgb(min(1, 2.0**exposure))
        assert np.abs(picture[:, :8].astype(int) - white).max() <= 1
    small = client.get(f"/jobs/{job['id']}/preview/grey.exr", params={"side": 16})
    assert Image.open(io.BytesIO(small.content)).size == (16, 12)
    refusal(client.get(f"/jobs/{job['id']}/preview/grey.exr", params={"exposure": "bright"}), 422)


def test_a_clip_shows_some_of_its_frames(client: TestClient, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", [photo(40 * index) for index in range(6)], pixels="bgr0", layout="rgb24")
    job = ended(client, upload(client, ("clip.mkv", clip.read_bytes()))["id"])
    assert job["counts"]["done"] == 6 and job["result_count"] == 6
    assert [one["about"] for one in job["shown"]][::4] == [
        "frame 1, one of 5 shown of 6",
        "frame 6, one of 5 shown of 6",
    ]
    assert client.get(f"/jobs/{job['id']}/preview/{job['shown'][-1]['name']}").status_code == 200


def test_paths_below_a_root_are_converted_where_they_are(client: TestClient, place: Path) -> None:
    root = place / "root"
    answer = client.post("/jobs", json={"paths": [f"{root}/a.png", f"{root}/more"], "options": CLIP})
    job = ended(client, answer.json()["id"])
    assert [one["name"] for one in job["results"]] == ["a.exr", "b.exr"]
    assert sorted(path.name for path in root.iterdir()) == ["a.png", "folder", "link.png", "more"]


@pytest.mark.parametrize(
    "path",
    ["{0}/outside/secret.png", "{0}/root/link.png", "{0}/root/folder/secret.png", "{0}/root/folder", "/etc/passwd", "/",
     "{0}/root/../outside", "{0}/root/*.png", "{0}/root/folder/*.png", "{0}/rooted/a.png", "root/a.png", "",
     "{0}/root/a\0.png"],
)  # fmt: skip
def test_no_path_leads_out_of_the_roots(client: TestClient, place: Path, path: str) -> None:
    answer = client.post("/jobs", json={"paths": [path.format(place)], "options": CLIP})
    assert "is not below a --root" in refusal(answer, 403)


def test_a_link_that_changes_while_its_job_waits_is_seen(place: Path, idle: Any, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    Image.fromarray(photo()).save(tmp_path / "root" / "a.png")
    jobs, client = idle(root=[tmp_path / "root"])
    job = client.post("/jobs", json={"paths": [str(tmp_path / "root" / "a.png")], "options": CLIP}).json()
    (tmp_path / "root" / "a.png").unlink()
    (tmp_path / "root" / "a.png").symlink_to(place / "outside" / "secret.png")
    jobs.start()
    job = ended(client, job["id"])
    assert job["state"] == "failed" and "is not below a --root" in job["message"] and job["result_count"] == 0


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"tilt": 1}, 422, "has no option 'tilt'"),
        ({"log_file": "/tmp/x"}, 422, "has no option 'log_file'"),
        ({"exposure": 99}, 422, "exposure is 99.0, but must be -32 to 32"),
        ({"format": "jpeg"}, 422, "choose from exr"),
        ({"ocio-space": "ACEScg"}, 422, "--ocio and --ocio-space go together"),
        ({"device": "cuda:7"}, 422, "device is the server's to choose"),
        ({"max-pixels": 2**40}, 422, "max-pixels is the server's to choose"),
        ({"on": "ray:10.0.0.1:22"}, 422, "on is the server's to choose"),
        ({"shard": "1/2"}, 422, "shard is the server's to choose"),
        ({"weights": "/etc/passwd"}, 403, "not below a --root"),
        ({"ocio": "/etc/passwd", "ocio_space": "ACEScg"}, 403, "not below a --root"),
        ({"name": "../{stem}"}, 422, "a name, and no path"),
        ([1], 422, "not a JSON object"),
    ],
)  # fmt: skip
def test_options_are_checked_as_those_of_convert(
    client: TestClient, place: Path, options: Any, status: int, words: str
) -> None:
    uploaded = client.post("/jobs", files=parts(("a.png", png(photo()))), data={"options": json.dumps(options)})
    assert words in refusal(uploaded, status)
    named = client.post("/jobs", json={"paths": [str(place / "root" / "a.png")], "options": options})
    assert words in refusal(named, status)


def test_requests_that_make_no_sense_are_told_so(client: TestClient) -> None:
    assert "names no files" in refusal(client.post("/jobs", json={"options": {}}), 422)
    assert "'path'" in refusal(client.post("/jobs", json={"path": "a", "paths": ["b"]}), 422)
    assert "no picture" in refusal(client.post("/jobs", files={"options": (None, "{}")}), 422)
    assert "'exposure'" in refusal(client.post("/jobs", files=parts(("a.png", b"")), data={"exposure": "1"}), 422)
    assert "not a JSON object" in refusal(client.post("/jobs", files=parts(("a", b"")), data={"options": "{"}), 422)
    assert "application/json" in refusal(client.post("/jobs", content=b"hello"), 415)
    broken = client.post("/jobs", content=b"--x\r\nhello", headers={"content-type": "multipart/form-data"})
    assert "cannot be read" in refusal(broken, 400)
    for path in ("/jobs/none", "/jobs/none/events", "/jobs/none/results", "/jobs/none/preview/a.exr"):
        assert "no such job" in refusal(client.get(path), 404)


@pytest.mark.parametrize(
    "name", ["none.exr", "..%2fjob.json", "%2fetc%2fpasswd", ".ldr2hdr.lock", "ldr2hdr-manifest.jsonl", "a" * 300]
)
def test_only_results_are_given_away(client: TestClient, name: str) -> None:
    job = ended(client, upload(client, ("a.png", png(photo())))["id"])
    for kind in ("results", "preview"):
        assert "no such result" in refusal(client.get(f"/jobs/{job['id']}/{kind}/{name}"), 404)


def endless_upload(client: TestClient) -> str:
    """What an upload is told that says nothing of its length; it fails where more than a mebibyte is read of it."""
    sent: list[dict[str, Any]] = []
    rest = iter(
        [b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'] + [bytes(2**16)] * 16
    )

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(rest), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/jobs",
        "headers": headers,
        "query_string": b"",
        "root_path": "",
    }
    asyncio.run(client.app({**scope, "http_version": "1.1", "scheme": "http"}, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 413
    return json.loads(sent[1]["body"])["detail"]


def test_too_much_is_refused_before_it_is_taken(client: TestClient, place: Path) -> None:
    many = [(f"{index}.png", png(photo())) for index in range(4)]
    assert "4 pictures, more than the 3" in refusal(client.post("/jobs", files=parts(*many)), 413)
    large = client.post("/jobs", files=parts(("a.png", bytes(500_000))))
    assert "larger than the 400K" in refusal(large, 413)

    assert "larger than the 400K" in endless_upload(client)
    assert "1 MiB" in refusal(client.post("/jobs", json={"paths": ["x" * 2**21]}), 413)
    for index in range(3):
        shutil.copy(place / "root" / "a.png", place / "root" / "more" / f"copy {index}.png")
    try:
        assert "4 pictures" in refusal(client.post("/jobs", json={"paths": [str(place / "root" / "more")]}), 413)
    finally:
        for index in range(3):
            (place / "root" / "more" / f"copy {index}.png").unlink()
    assert list((place / "data" / "tmp").iterdir()) == []


def test_pixels_have_the_limit_of_the_server(idle: Any) -> None:
    jobs, client = idle(max_pixels=1000)
    jobs.start()
    job = ended(client, upload(client, ("a.png", png(photo())))["id"])
    assert job["state"] == "failed" and job["counts"] == {"failed": 1}
    assert "64×48 pixels, more than the 1000" in client.get(f"/jobs/{job['id']}/events").json()["events"][0]["message"]


def test_a_full_queue_takes_no_more_until_one_is_cancelled(idle: Any) -> None:
    jobs, client = idle(max_queued=2)
    first, _ = (upload(client, (f"{index}.png", png(photo()))) for index in range(2))
    answer = client.post("/jobs", files=parts(("a.png", png(photo()))))
    assert "2 jobs are waiting" in refusal(answer, 429) and answer.headers["retry-after"]
    assert client.delete(f"/jobs/{first['id']}").status_code == 204
    refusal(client.get(f"/jobs/{first['id']}"), 404)
    upload(client, ("a.png", png(photo())))
    assert [job.state for job in jobs.all()] == ["queued", "queued"]


def test_a_running_job_is_stopped_and_gone(client: TestClient, place: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", [photo()] * 400, pixels="bgr0", layout="rgb24")
    job = upload(client, ("clip.mkv", clip.read_bytes()))
    while not client.get(f"/jobs/{job['id']}").json()["counts"].get("done"):
        time.sleep(0.01)
    assert client.delete(f"/jobs/{job['id']}").status_code == 202
    assert client.get(f"/jobs/{job['id']}").status_code == 404 and client.get("/jobs").json() != []
    end = time.monotonic() + 30
    while (place / "data" / "jobs" / job["id"]).exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not (place / "data" / "jobs" / job["id"]).exists()
    ended(client, upload(client, ("next.png", png(photo())))["id"])


def test_each_device_takes_a_job(idle: Any, tmp_path: Path) -> None:
    """So that a photograph need not wait behind a long clip."""
    jobs, client = idle(device="cpu,cpu")
    clip = write_clip(tmp_path / "clip.mkv", [photo()] * 1500, pixels="bgr0", layout="rgb24")
    long = upload(client, ("clip.mkv", clip.read_bytes()))
    jobs.start()
    assert ended(client, upload(client, ("a.png", png(photo())))["id"])["state"] == "done"
    assert client.get(f"/jobs/{long['id']}").json()["state"] == "running"
    assert client.delete(f"/jobs/{long['id']}").status_code == 202


def test_old_jobs_go_by_age_and_by_size(idle: Any) -> None:
    jobs, client = idle(keep=2.0, keep_size="40K")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)  # 12 KiB that do not compress
    made: list[Job] = []
    for hours in (3, 1.5, 1):
        made.append(jobs.get(upload(client, ("a.png", png(noise)))["id"]))
        made[-1].state, made[-1].finished = "done", time.time() - 3600 * hours
    jobs.tidy()
    assert [job.id for job in jobs.all()] == [made[2].id, made[1].id]  # newest first
    upload(client, ("b.png", png(noise)))
    upload(client, ("c.png", png(noise)))
    assert made[1].id not in [job.id for job in jobs.all()] and made[2].id in [job.id for job in jobs.all()]
    upload(client, ("d.png", png(noise)))  # in the place of the last one that is finished
    assert "no room" in refusal(client.post("/jobs", files=parts(("e.png", png(noise)))), 507)
    assert len(list((jobs.all()[0].folder.parent).iterdir())) == 3


def test_a_job_that_outgrows_the_disk_is_ended(idle: Any, tmp_path: Path) -> None:
    jobs, client = idle(keep_size="300K")
    clip = write_clip(tmp_path / "clip.mkv", [photo()] * 400, pixels="bgr0", layout="rgb24")
    job = jobs.get(upload(client, ("clip.mkv", clip.read_bytes()), options={**CLIP, "compression": "none"})["id"])
    jobs.start()
    while job.finished is None:
        jobs.tidy()
        time.sleep(0.01)
    shown = client.get(f"/jobs/{job.id}").json()
    assert shown["state"] == "failed" and "more than the 300K" in shown["message"]
    assert job.bytes < 300 * 1024 and shown["result_count"] == 0


def test_a_server_goes_on_where_another_was_killed(idle: Any, tmp_path: Path) -> None:
    jobs, client = idle()
    clip = write_clip(tmp_path / "clip.mkv", [photo(index) for index in range(150)], pixels="bgr0", layout="rgb24")
    running, waiting, removed = (upload(client, ("clip.mkv", clip.read_bytes())) for _ in range(3))
    jobs.start()
    job = jobs.get(running["id"])
    while job.counts.get("done", 0) < 5:
        time.sleep(0.001)
    data, killed = tmp_path / "data", tmp_path / "killed"
    # The disk as a power cut would leave it; a claim of this process would be that of a living one.
    shutil.copytree(data, killed, ignore=shutil.ignore_patterns("*.tmp", CLAIMS))
    assert client.delete(f"/jobs/{removed['id']}").status_code == 204
    jobs.end()
    assert json.loads((data / "jobs" / running["id"] / "job.json").read_text())["state"] == "running"
    assert not (data / "jobs" / removed["id"]).exists()
    shutil.rmtree(data)
    killed.rename(data)

    jobs, client = idle()
    assert [job.id for job in jobs.all()] == [removed["id"], waiting["id"], running["id"]]
    jobs.start()
    found = [ended(client, job["id"]) for job in (running, waiting)]
    assert all(job["state"] == "done" and job["result_count"] == 150 for job in found)
    assert found[0]["counts"]["done"] <= 145 and found[1]["counts"]["done"] == 150
    outs = [jobs.get(job["id"]).out for job in found]
    for name in jobs.get(waiting["id"]).results():
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()


def test_a_playlist_does_not_lead_to_other_files(client: TestClient, tmp_path: Path) -> None:
    """FFmpeg would read what it names, and an HLS playlist may name any clip of the server."""
    clip = write_clip(tmp_path / "clip.mkv", [photo()] * 3, pixels="bgr0", layout="rgb24")
    files = [("clip.mkv", clip.read_bytes()), ("list.mp4", b"ffconcat version 1.0\nfile clip.mkv\n")]
    job = ended(client, upload(client, *files)["id"])
    assert job["counts"]["done"] == 3 and job["counts"]["failed"] == 1
    (failed,) = [one for one in client.get(f"/jobs/{job['id']}/events").json()["events"] if one["event"] == "failed"]
    assert failed["message"].startswith("list.mp4 is a playlist")


@contextmanager
def process(data: Path, *more: object, **environment: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """`ldr2hdr serve` as a process of its own, on a free port. Gives its address; ends it if that is not done yet."""
    command = [sys.executable, "-m", "ldr2hdr_cli", "serve", "--data", data, "--port", 0, "--device", "cpu", *more]
    server = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        found = re.fullmatch(r"ldr2hdr serve: (http://127\.0\.0\.1:\d+)/\n", line)
        assert found, line
        yield found[1], server
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def test_a_server_of_its_own_with_the_real_network(tmp_path: Path) -> None:
    """Asked in HTTP that is written by hand; it ends at SIGTERM."""
    data = png(photo(90, (40, 56)))
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + data + b"\r\n--x--\r\n"
    with process(tmp_path / "data", LDR2HDR_TOKEN="of the test") as (address, server):

        def ask(path: str, **more: Any) -> bytes:
            request = urllib.request.Request(address + path, **more)
            request.add_header("Authorization", "Bearer of the test")
            return urllib.request.urlopen(request, timeout=60).read()

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        job = json.loads(ask("/jobs", data=body, headers=headers))
        while job["finished"] is None:
            time.sleep(0.05)
            job = json.loads(ask(f"/jobs/{job['id']}"))
        assert job["state"] == "done"
        made = ask(f"/jobs/{job['id']}/results/a.exr")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address + "/jobs", timeout=60)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    (tmp_path / "a.png").write_bytes(data)
    list(convert(tmp_path / "a.png", tmp_path / "out", ConvertOptions(device="cpu")))
    assert made == (tmp_path / "out" / "a.exr").read_bytes()


def test_two_servers_do_not_share_a_folder(idle: Any, tmp_path: Path) -> None:
    idle()
    with pytest.raises(Ldr2hdrError, match="in use by another server"):
        Jobs(tmp_path / "data", ServeOptions())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, 200),
        ({"host": "[::1]:8000", "sec-fetch-site": "same-origin"}, 200),
        ({"host": "evil.example:8000"}, 403),  # a name that its owner points here
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": ""}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_pages_of_other_sites_have_no_way_in(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.get("/jobs", headers=headers).status_code == status
    answer = client.post("/jobs", files=parts(("a.png", png(photo()))), headers=headers)
    assert answer.status_code == (202 if status == 200 else status)
    assert "access-control-allow-origin" not in answer.headers


def test_a_token_is_asked_for(idle: Any) -> None:
    _, client = idle(token="right")
    for path in ("/jobs", "/jobs/x/results", "/openapi.json"):
        for said in (None, "Bearer wrong", "Bearer ", "right", "Basic right", "Bearer righ", "Bearer right2"):
            answer = client.get(path, headers={} if said is None else {"authorization": said})
            assert "token" in refusal(answer, 401) and answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/jobs", headers={"authorization": "Bearer right"}).json() == []
    assert client.get("/").status_code == 200 and client.get("/healthz").status_code == 503  # no worker is started
    behind_a_proxy = {"authorization": "Bearer right", "host": "hdr.example.org", "origin": "https://hdr.example.org"}
    assert client.get("/jobs", headers=behind_a_proxy).status_code == 200


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert "http://" not in page.text and "https://" not in page.text and 'src="' not in page.text
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    assert {"/jobs", "/jobs/{id}", "/healthz"} < client.get("/openapi.json").json()["paths"].keys()
    assert client.get("/healthz").json() == {"status": "ok"}


@settings(max_examples=30)
@given(st.lists(st.text(st.characters() | st.sampled_from("/\\.:*%~"), max_size=40), min_size=1, max_size=4))
def test_names_of_uploads_stay_in_their_folder(given: list[str]) -> None:
    taken: set[str] = set()
    names = [file_name(name, taken) for name in given]
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name == os.path.basename(name) and name.isprintable() and not name.startswith(".")  # noqa: PTH119
        assert 0 < len(os.fsencode(name)) <= 220 and not set(name) & set('\\/:*?"<>|')


def test_names_of_uploads_are_kept_where_they_can_be() -> None:
    taken: set[str] = set()
    names = ["IMG 1.jpg", "C:\\photos\\IMG 1.JPG", "../../etc/passwd", "Größe.tar.gz", ".jpg"]
    assert [file_name(name, taken) for name in names] == ["IMG 1.jpg", "IMG 1-2.JPG", "passwd", "Größe.tar.gz", "jpg"]
    assert file_name("夜" * 200 + ".jpeg", taken) == "夜" * 50 + ".jpeg"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "lets other machines in: give a --token"),
        ({"host": "0.0.0.0", "token": ""}, "--token"),
        ({"token": "zwölf"}, "ASCII"),
        ({"root": [Path("/nowhere")]}, "--root /nowhere is not a folder"),
        ({"host": "192.0.2.1", "token": "x"}, "cannot be listened on"),
        ({"weights": Path("/nowhere.safetensors")}, "no such weights file"),
        ({"device": "cuda:77"}, "--device cuda:77: cannot be used"),
    ],
)
def test_a_server_that_cannot_be_is_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(Ldr2hdrError, match=words):
        command.serve(tmp_path / "data", ServeOptions(**{"port": 0, "device": "cpu", **options}))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(Ldr2hdrError, match=r"needs the package uvicorn: pip install 'ldr2hdr\[serve\]'"):
        command.serve(tmp_path, ServeOptions())


@pytest.mark.parametrize("amount", ["auto", "much", "-1", "0"])
def test_limits_are_amounts_of_bytes(amount: str) -> None:
    with pytest.raises(Ldr2hdrError):
        ServeOptions(max_upload=amount)


def test_a_thread_keeps_its_network_until_another_is_asked_for(weights: Path) -> None:
    usual: dict[str, Any] = {"device": "cpu", "weights": weights}
    options = ConvertOptions(**usual)
    with kept():
        (first,) = reconstructors(options)
        assert reconstructors(ConvertOptions(**usual, exposure=1.0, format="hdr"))[0] is first
        told: list[str] = []
        assert reconstructors(options, told.append)[0] is first
        (other,) = reconstructors(ConvertOptions(**usual, threshold=0.9))
        assert other is not first and other.threshold == 0.9
        (again,) = reconstructors(options, told.append)
        assert again is not first
        again.notify("a setting was lowered")
        assert told == ["a setting was lowered"] and reconstructors(options)[0] is not again
    assert reconstructors(options)[0] is not reconstructors(options)[0]


def test_what_was_made_before_the_disk_was_full_is_kept(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Manifest.add

    def full(self: Manifest, entry: dict[str, Any], settings: Any = None) -> None:
        if entry["output"] == "b.exr":
            raise RunError("The disk is full.")
        add(self, entry, settings)

    monkeypatch.setattr(Manifest, "add", full)
    job = ended(client, upload(client, ("a.png", png(photo())), ("b.png", png(photo(60))))["id"])
    assert (job["state"], job["message"]) == ("failed", "The disk is full.")
    assert "a.exr" in [one["name"] for one in job["results"]]
