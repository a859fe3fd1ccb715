"""The one exception that reaches the user as a sentence."""


class Ldr2hdrError(Exception):
    """Something the user can mend. Its text is one sentence that names the file, what is wrong and what to do.

    Raised where the fault is known; turned into a line on stderr once, in `ldr2hdr_cli/app.py`.
    """
