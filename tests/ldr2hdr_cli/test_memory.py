"""How much memory a process may use: the machine's, or its container's."""

from pathlib import Path

import psutil
import pytest

from ldr2hdr_cli import memory


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("membership", "files", "limits"),
    [
        # Docker with cgroup v2: the container sees its own group as the root.
        ("0::/\n", {"memory.max": "2147483648\n"}, [2**31]),
        # A systemd unit inside a slice with a limit of its own; neither at the root.
        ("0::/a.slice/b\n", {"a.slice/b/memory.max": "max\n", "a.slice/memory.max": "1073741824\n"}, [2**30]),
        # v1, in one hierarchy of many; 2^63 - 4096 is its way to say none.
        (
            "10:cpu,cpuacct:/docker/c\n9:memory:/docker/c\n0::/system.slice\n",
            {"memory/docker/c/memory.limit_in_bytes": "536870912", "memory/memory.limit_in_bytes": str(2**63 - 4096)},
            [2**29, 2**63 - 4096],
        ),
        # v1 in a container: the group is named as the host sees it.
        ("9:memory:/docker/gone\n", {"memory/memory.limit_in_bytes": "536870912\n"}, [2**29]),
        ("0::/\n", {}, []),
        ("what is this", {}, []),
    ],
)  # fmt: skip
def test_a_container_has_what_its_groups_allow(tmp_path, membership, files, limits):
    for name, text in files.items():
        write(tmp_path / "cgroup" / name, text)
    write(tmp_path / "self", membership)
    assert list(memory._container_limits(tmp_path / "cgroup", tmp_path / "self")) == limits


def test_the_smaller_of_machine_and_container_counts(monkeypatch):
    total = psutil.virtual_memory().total
    for limits, expected in (([], total), ([total // 3, 2**63], total // 3), ([2**63], total)):
        monkeypatch.setattr(memory, "_container_limits", lambda found=limits: iter(found))
        assert memory.machine_memory() == expected


def test_a_system_without_groups_has_no_limit(tmp_path):
    assert list(memory._container_limits(tmp_path, tmp_path / "nowhere")) == []
