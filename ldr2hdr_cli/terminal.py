"""What goes to a terminal, a pipe or a log: text of files and names is shown as text and does nothing else."""

import os


def one_line(text: str) -> str:
    """Text with its control characters written out, as `\\n`: a name can neither forge a line nor move the cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text.rstrip("\n"))


def silence(descriptor: int) -> None:
    """What is still written there, at the end by Python itself, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
