"""`ldr2hdr serve`: a socket, signals and a thread of uvicorn around the application."""

import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ldr2hdr_cli.memory import keep_freed_memory
from ldr2hdr_cli.serve.options import ServeOptions
from model.errors import Ldr2hdrError

if TYPE_CHECKING:
    from ldr2hdr_cli.serve.guard import App

PATIENCE = 5  # seconds that open connections have to end, once the server is told to


def serve(data: Path, options: ServeOptions) -> None:
    """Serve until the first SIGINT or SIGTERM. Raises Ldr2hdrError where it cannot begin."""
    if missing := [name for name in ("fastapi", "uvicorn", "python_multipart") if find_spec(name) is None]:
        raise Ldr2hdrError(f"serve needs the package {missing[0]}: pip install 'ldr2hdr[serve]'.")
    from ldr2hdr_cli.convert.command import signals
    from ldr2hdr_cli.serve.app import make_app
    from ldr2hdr_cli.serve.jobs import Jobs

    _check(options)
    data = data.absolute()
    keep_freed_memory()
    stop = threading.Event()
    with _listening(options) as listener, signals(stop), _spooled(data / "tmp"):
        jobs = Jobs(data, options)
        jobs.start()
        try:
            with answering(make_app(jobs, options), listener) as thread:
                host, port = listener.getsockname()[:2]
                print(f"ldr2hdr serve: http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
                while thread.is_alive() and not stop.wait(1):
                    pass
        finally:
            jobs.end()
        if not stop.is_set():
            raise Ldr2hdrError("The server ended by itself: its messages above say why.")


@contextmanager
def _spooled(folder: Path) -> Iterator[None]:
    """Uploads are large: within it they come in where they stay."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def answering(app: "App", listener: socket.socket) -> Iterator[threading.Thread]:
    """Within it, a thread of uvicorn answers what comes in there."""
    import uvicorn

    how = {"log_level": "warning", "lifespan": "off", "server_header": False, "timeout_graceful_shutdown": PATIENCE}
    server = uvicorn.Server(uvicorn.Config(app, **how))  # type: ignore[arg-type]
    # Not the main thread: there uvicorn would take the signals for itself.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http")
    thread.start()
    try:
        yield thread
    finally:
        server.should_exit = True
        thread.join()


def _check(options: ServeOptions) -> None:
    from ldr2hdr_cli.serve.guard import is_loopback

    if options.token is None and not is_loopback(options.host):
        raise Ldr2hdrError(f"--host {options.host} lets other machines in: give a --token, or listen on 127.0.0.1.")
    if options.token is not None and not re.fullmatch("[!-~]+( +[!-~]+)*", options.token):
        raise Ldr2hdrError("--token must have one sign at least, all of them of ASCII: choose another.")
    for root in options.root or ():
        if not root.is_dir():
            raise Ldr2hdrError(f"--root {root} is not a folder: give one that is.")


def _listening(options: ServeOptions) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise Ldr2hdrError(
            f"{options.host}:{options.port} cannot be listened on ({error.strerror}): choose another --port or --host."
        ) from None
