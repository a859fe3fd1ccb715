"""What a batch system is given: the templates of examples/farm, and the container that its machines run."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest

from ldr2hdr_cli.app import main

ROOT = Path(__file__).resolve().parents[1]
FARM = ROOT / "examples" / "farm"


def program(name: str) -> str:
    """A program that lies beside Python or on the PATH."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if not found:
        pytest.skip(f"no {name}")
    return found


@pytest.fixture
def noted(tmp_path):
    """noted(command, **variables): the arguments of each `ldr2hdr` that a program starts; they are not carried out."""
    notes = tmp_path / "notes"
    script = tmp_path / "bin" / "ldr2hdr"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport json, sys\nopen({str(notes)!r}, 'a').write(json.dumps(sys.argv[1:]) + chr(10))\n"
    )
    script.chmod(0o755)

    def run(command: list, **variables: str) -> list[list[str]]:
        notes.write_text("")
        environment = {**os.environ, **variables, "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in notes.read_text().splitlines()]

    return run


@pytest.fixture
def ldr2hdr(monkeypatch):
    """ldr2hdr(*arguments), which must end well, in this process."""

    def run(*arguments) -> None:
        monkeypatch.setattr(sys, "argv", ["ldr2hdr", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code

    return run


@pytest.fixture
def photographs(tmp_path) -> Path:
    """More than one chunk of them, and one further down."""
    folder = tmp_path / "photographs"
    (folder / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(18):
        picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / ("below" if number == 3 else "") / f"p{number:02d}.png"), picture)
    return folder


def results(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.exr"))}


# -- templates --------------------------------------------------------------------------------------------------------


def by_openjd(noted, source: Path, out: Path) -> list[list[str]]:
    given = ["-p", f"Input={source}", "-p", f"Output={out}", "-p", "Shards=3"]
    return noted([program("openjd"), "run", FARM / "openjd.yaml", *given])


def by_slurm(noted, source: Path, out: Path) -> list[list[str]]:
    """The script's body, as each task of `--array=5-7` runs it."""
    script, arguments = FARM / "slurm.sh", [source, "-o", out, "--recursive"]
    array = {"SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "3"}
    tasks = (noted(["sh", script, *arguments], SLURM_ARRAY_TASK_ID=task, **array) for task in ("5", "6", "7"))
    return [arguments for task in tasks for arguments in task]


@pytest.mark.skipif(sys.platform == "win32", reason="the templates are of POSIX machines")
@pytest.mark.parametrize("batch_system", [by_openjd, by_slurm])
def test_the_tasks_of_a_batch_system_make_what_one_process_makes(noted, ldr2hdr, photographs, tmp_path, batch_system):
    parts = batch_system(noted, photographs, tmp_path / "parts")
    assert len(parts) == 3
    for arguments in parts:
        ldr2hdr(*arguments, "--method", "clip", "--quiet")
    ldr2hdr("convert", photographs, "-o", tmp_path / "one", "--recursive", "--method", "clip", "--quiet")
    assert len(results(tmp_path / "one")) == 18
    assert results(tmp_path / "parts") == results(tmp_path / "one")


def test_the_openjd_template_is_valid_and_has_a_task_for_each_part():
    command = [
        program("openjd"),
        "summary",
        FARM / "openjd.yaml",
        "-p",
        "Input=/a",
        "-p",
        "Output=/b",
        "-p",
        "Shards=40",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Total tasks: 40" in done.stdout, done.stdout + done.stderr


def test_the_slurm_script_passes_shellcheck():
    done = subprocess.run([program("shellcheck"), FARM / "slurm.sh"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert (FARM / "slurm.sh").stat().st_mode & 0o111


# -- container --------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line]


def of(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def copied() -> list[str]:
    """What comes from the repository."""
    return [name for rest in of("COPY") if "--from" not in rest for name in shlex.split(rest)[:-1]]


def test_the_dockerfile_passes_hadolint():
    done = subprocess.run([program("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_image_is_of_fixed_releases_and_does_not_run_as_root():
    stages: list[str] = []
    for image, *name in (rest.split() for rest in of("FROM")):
        assert image in stages or re.fullmatch(r".+:(?!latest).+", image), image
        stages += name[1:]
    assert all(f"--from={stage}" in " ".join(of("COPY")) or stage == stages[0] for stage in stages)
    names = [name for name, _ in instructions()]
    assert of("USER") == ["1000:1000"] and names.index("USER") > max(
        at for at, name in enumerate(names) if name == "RUN"
    )
    assert of("ENTRYPOINT") == ['["ldr2hdr"]']


def test_all_of_the_package_is_copied_and_nothing_that_is_ignored():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    files = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert set(copied()) == packages | files and all((ROOT / name).exists() for name in copied())
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for name in [*copied(), "model/weights/default.safetensors"]:
        last = [rule for rule in rules if fnmatch.fnmatch(name.split("/")[0], rule.removeprefix("!"))][-1]
        assert last.startswith("!"), name
