"""The HTTP API and the page over `jobs`."""

import base64
import hashlib
import io
import json
import mimetypes
import os
import re
import threading
import zipfile
from collections.abc import Iterator, MutableMapping
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, get_args, get_type_hints

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from ldr2hdr_cli.convert.manifest import Contents, Manifest
from ldr2hdr_cli.media.formats import FILM_SUFFIXES
from ldr2hdr_cli.options import ConvertOptions
from ldr2hdr_cli.serve.asked import Refused, file_name
from ldr2hdr_cli.serve.guard import App, Guard
from ldr2hdr_cli.serve.jobs import NO_RESULTS, Job, Jobs
from ldr2hdr_cli.serve.options import ServeOptions
from ldr2hdr_cli.view.page import choose, templates
from ldr2hdr_cli.view.pictures import Pair, pair_of
from model import __version__
from model.errors import Ldr2hdrError

MOST_EVENTS, MOST_RESULTS = 1000, 1000  # in one answer
JSON_BYTES = 2**20  # of a request without uploads
PIECE = 2**20  # bytes that are read at a time
LONGEST_SIDE = 2048  # pixels of a preview

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "options": {"type": "string", "description": "Options of convert, as a JSON object."},
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "paths": {"type": "array", "items": {"type": "string"}},
                        "options": {"type": "object", "description": "Options of convert."},
                    },
                }
            },
        },
    }
}


def make_app(jobs: Jobs, options: ServeOptions) -> App:
    """The ASGI application. Every refusal is {"detail": one sentence}."""
    html, policy = _page(options)
    app = FastAPI(title="ldr2hdr", version=__version__, docs_url=None, redoc_url=None)

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        headers = {"Retry-After": "30"} if error.status in (429, 503, 507) else None
        return JSONResponse({"detail": str(error)}, error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def misunderstood(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}."}, 422)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> Response:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    @app.get("/healthz")
    def healthz() -> Response:
        """200 while every device's worker lives, else 503."""
        return JSONResponse({"status": "ok" if jobs.is_well else "failed"}, 200 if jobs.is_well else 503)

    @app.post("/jobs", status_code=202, openapi_extra=_BODY)
    async def submit(request: Request, response: Response) -> dict[str, Any]:
        """Queue a job: pictures as multipart/form-data, or {"paths": …} of files below a root of the server."""
        jobs.refuse_more()
        job = await _submitted(request, jobs, options)
        response.headers["Location"] = f"/jobs/{job.id}"
        return job.described()

    @app.get("/jobs")
    def listed() -> list[dict[str, Any]]:
        """All jobs, the newest first."""
        return [job.described() for job in jobs.all()]

    @app.get("/jobs/{id}")
    def status(id: str) -> dict[str, Any]:
        """A job; once it is finished with its results, and with those that `preview` shows."""
        job = jobs.get(id)
        return job.described() | (_finished(job) if job.finished is not None else {})

    @app.get("/jobs/{id}/events")
    def events(id: str, since: Annotated[int, Query(ge=0)] = 0) -> dict[str, Any]:
        """What `convert --json` would tell of it, from number `since` on; `next` is where to go on."""
        found = jobs.get(id).events(since, MOST_EVENTS)
        return {"events": found, "next": since + len(found)}

    @app.delete("/jobs/{id}", status_code=204)
    def remove(id: str, response: Response) -> None:
        """Cancel or delete it: 204 gone; 202 what is in hand is finished first."""
        if not jobs.remove(jobs.get(id)):
            response.status_code = 202

    @app.get("/jobs/{id}/results", response_class=StreamingResponse)
    def results(id: str) -> Response:
        """All results that are there, as a ZIP."""
        job = jobs.get(id)
        disposition = {"Content-Disposition": f'attachment; filename="ldr2hdr-{id}.zip"'}
        return StreamingResponse(_zipped(job.out, job.results()), media_type="application/zip", headers=disposition)

    @app.get("/jobs/{id}/results/{name:path}", response_class=FileResponse)
    def result(id: str, name: str) -> Response:
        """One result, by its name in `results`."""
        job = jobs.get(id)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return FileResponse(job.out / _found(job, name), filename=PurePosixPath(name).name, media_type=kind)

    @app.get("/jobs/{id}/preview/{name:path}", response_class=Response)
    def preview(
        id: str,
        name: str,
        exposure: Annotated[float, Query(ge=-32, le=32, description="In stops.")] = 0,
        of: Literal["result", "source"] = "result",
        side: Annotated[int, Query(ge=16, le=LONGEST_SIDE, description="At most so many pixels long.")] = 1280,
        format: Literal["jpeg", "png"] = "jpeg",
    ) -> Response:
        """A result, or its source, tone-mapped at an exposure; at 0 the result looks as the source."""
        job = jobs.get(id)
        pair = _pair(job.out, _found(job, name), side)
        picture = pair.result(exposure) if of == "result" else pair.source(exposure)
        if picture is None:
            raise Refused(404, f"The source of {name} is gone: only the result can be shown.")
        return Response(_encoded(picture, format), media_type=f"image/{format}")

    return Guard(app, options.token)


async def _submitted(request: Request, jobs: Jobs, options: ServeOptions) -> Job:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = _table(await _limited(request, JSON_BYTES, "1 MiB without uploads").body())
        paths = body.get("paths")
        if unknown := sorted(set(body) - {"paths", "options"}):
            raise Refused(422, f"The request has {unknown[0]!r}: it may have paths and options.")
        if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
            raise Refused(422, "The request names no files: give paths, a list of texts, or upload pictures.")
        return await run_in_threadpool(jobs.add, paths, _options(body.get("options", {})))
    if kind != "multipart/form-data":
        raise Refused(415, "Send pictures as multipart/form-data, or paths as application/json.")
    request = _limited(request, options.upload_bytes, options.max_upload)
    # Parts of all kinds are counted here, since a limit of the parser's would be told in words of its own.
    try:
        async with request.form(max_files=10 * options.max_pictures, max_fields=10) as form:
            files = [part for _, part in form.multi_items() if isinstance(part, UploadFile) and part.filename]
            fields = {name: part for name, part in form.multi_items() if isinstance(part, str)}
            if len(files) > options.max_pictures:
                raise Refused(
                    413, f"These are {len(files)} pictures, more than the {options.max_pictures} that a job may have."
                )
            if not files:
                raise Refused(422, "The request holds no picture: upload one or several as parts with a file name.")
            if unknown := sorted(set(fields) - {"options"}):
                raise Refused(422, f"The request has {unknown[0]!r}: besides pictures it may have options, as JSON.")
            taken: set[str] = set()
            names = [file_name(str(part.filename), taken) for part in files]
            fill = partial(_store, list(zip(names, files, strict=True)))
            return await run_in_threadpool(jobs.add, names, _options(_table(fields.get("options", "{}"))), fill)
    except HTTPException as error:  # the parser's, of what is no multipart
        raise Refused(400, f"The upload cannot be read ({error.detail}): send it as multipart/form-data.") from None


def _limited(request: Request, most: int, shown: str) -> Request:
    """The same request, refused as soon as more bytes come."""
    sentence = f"The request is larger than the {shown} that this server takes: send less at a time."
    if request.headers.get("content-length", "0").isdecimal() and int(request.headers.get("content-length", 0)) > most:
        raise Refused(413, sentence)
    come = 0

    async def receive() -> MutableMapping[str, Any]:
        nonlocal come
        message = await request.receive()
        come += len(message.get("body", b""))
        if come > most:
            raise Refused(413, sentence)
        return message

    return Request(request.scope, receive)


def _store(files: list[tuple[str, UploadFile]], folder: Path) -> None:
    for name, part in files:
        with (folder / name).open("xb") as kept:
            while piece := part.file.read(PIECE):
                kept.write(piece)


def _table(text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(422, 'The request is not a JSON object: write it like {"exposure": -1}.')
    return found


def _options(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise Refused(422, 'The request\'s options are not a JSON object: write them like {"exposure": -1}.')
    return found


def _finished(job: Job) -> dict[str, Any]:
    """Its files, and of those that can be looked at every photograph and some frames of each clip."""
    files = job.results()
    return {
        "results": [
            {"name": path.as_posix(), "bytes": (job.out / path).stat().st_size} for path in files[:MOST_RESULTS]
        ],
        "result_count": len(files),
        "shown": [
            {"name": one.name, "about": one.about, "clipped": one.entry.get("clipped")}
            for one in choose(_manifest(job.out).entries)[:MOST_RESULTS]
        ],
    }


def _manifest(out: Path) -> Contents:
    try:
        return Manifest(out).everything()
    except Ldr2hdrError:
        return Contents()


def _found(job: Job, name: str) -> str:
    """The name of a result, as a path below `out`. Raises Refused, for whatever is not one too."""
    path = PurePosixPath(name)
    is_hidden = any(part.startswith(NO_RESULTS) for part in path.parts)
    is_there = os.path.isfile(job.out / path)  # noqa: PTH113 - Path.is_file raises for a name that is too long
    if "\0" in name or "\\" in name or path.is_absolute() or is_hidden or not is_there:
        raise Refused(404, "There is no such result: those of a job are named in its results.")
    return path.as_posix()


def _pair(out: Path, name: str, side: int) -> Pair:
    if name.endswith(FILM_SUFFIXES):
        raise Refused(404, f"{name} is a film: download it to see it.")
    modified = (out / name).stat().st_mtime_ns
    try:
        with _ONE_AT_A_TIME:
            return _pair_of(out, name, side, modified)
    except (Ldr2hdrError, OSError) as error:
        raise Refused(404, f"{name} cannot be shown: {str(error).replace(str(out), '')}") from None


_ONE_AT_A_TIME = threading.Lock()
"""Pictures are decoded one after the other: that two are in memory at once is bad enough."""


@lru_cache(maxsize=24)
def _pair_of(out: Path, name: str, side: int, _modified: int) -> Pair:
    manifest = _manifest(out)
    entry = manifest.entries.get(name, {})
    return pair_of(out / name, entry, manifest.settings.get(entry.get("settings", ""), {}), side)


def _encoded(picture: Any, format: str) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    how: dict[str, Any] = {"quality": 90, "subsampling": 0} if format == "jpeg" else {"compress_level": 3}
    Image.fromarray(picture).save(data, format.upper(), **how)
    return data.getvalue()


class _Pieces(io.RawIOBase):
    """What is written to it, to be taken in pieces."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += data
        return len(data)

    def taken(self) -> bytes:
        data = bytes(self.data)
        self.data.clear()
        return data


def _zipped(folder: Path, names: list[Path]) -> Iterator[bytes]:
    """A ZIP while it is made: EXRs are compressed already."""
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            info = zipfile.ZipInfo.from_file(folder / name, name.as_posix())
            with (folder / name).open("rb") as file, archive.open(info, "w", force_zip64=True) as entry:
                while piece := file.read(PIECE):
                    entry.write(piece)
                    yield pieces.taken()
    yield pieces.taken()


def _readable(amount: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} GiB"


def _page(options: ServeOptions) -> tuple[str, str]:
    """The page and its Content-Security-Policy, which allows its own style and script and no others."""
    html = (
        templates()
        .get_template("serve/page.html")
        .render(
            version=__version__,
            has_token=options.token is not None,
            limits={
                "upload": _readable(options.upload_bytes),
                "pictures": options.max_pictures,
                "keep": f"{options.keep:g}",
            },
            upload_bytes=options.upload_bytes,
            most_events=MOST_EVENTS,
            colorspaces=get_args(get_type_hints(ConvertOptions)["colorspace"]),
        )
    )
    hashes = {
        tag: base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        for tag, body in re.findall(r"<(style|script)>(.*?)</\1>", html, re.DOTALL)
    }
    policy = (
        "default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'"
    )
    return html, policy
