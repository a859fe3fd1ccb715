"""`python -m ldr2hdr_cli`, where the command is not on the path."""

import sys
from contextlib import suppress
from pathlib import Path

# With -m Python looks for modules in the working directory first, which may hold a model.py or train.py of the user's.
with suppress(OSError):  # of a working directory that is gone
    _first = Path(sys.path[0]).resolve()
    if not sys.flags.safe_path and _first == Path.cwd() and _first != Path(__file__).resolve().parent.parent:
        del sys.path[0]

from ldr2hdr_cli.app import main

if __name__ == "__main__":
    main()
