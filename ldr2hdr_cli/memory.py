"""How much memory there is, and how the C library's malloc treats the feature maps that come and go."""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
_LARGEST_THRESHOLD = 2**25  # bytes; malloc takes no larger one
_CGROUPS = Path("/sys/fs/cgroup")


def machine_memory() -> int:
    """Bytes that this process may come to use: what the machine has, or its container, whichever is less.

    All of it, not what is free: a result must not depend on the neighbours.
    """
    import psutil

    return min([psutil.virtual_memory().total, *_container_limits()])


def _container_limits(root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """The limits of this process's control groups (cgroup v2 and v1) and of those they are in; psutil knows none.

    membership: a line of each hierarchy, `0::/GROUP` of v2 or `9:memory:/GROUP` of v1. Within a container the group may
    be named as the host sees it, where no such folder is; the root is then its own.
    """
    try:
        lines = membership.read_text(errors="replace").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        hierarchy, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        place = PurePosixPath(group.lstrip("/"))
        for folder in (place, *place.parents):
            with suppress(OSError, ValueError):  # not there, or "max": none
                yield int((hierarchy / folder / name).read_text())


def keep_freed_memory(all_of_it: bool = False) -> None:
    """Has malloc (glibc's) reuse what was freed; else every feature map is given back to the system and its pages are
    fetched again, a tenth of the time of a network that converts and a sixth of that of one that trains.

    all_of_it: also pieces above 32 MiB. The same maps come and go at every step of a training; of pictures of many
    sizes they could leave gaps that fit nothing. On another system or C library nothing happens.
    """
    with suppress(OSError, AttributeError, TypeError):
        malloc = ctypes.CDLL(None)
        malloc.mallopt(_TRIM_THRESHOLD, 2**30)
        malloc.mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        if all_of_it:
            malloc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
            malloc.mallopt(_MMAP_MAX, 0)
