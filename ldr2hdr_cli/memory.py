"""How the C library's malloc treats the feature maps that come and go."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
_LARGEST_THRESHOLD = 2**25  # bytes; malloc takes no larger one


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
