"""The routes. Each reads a request, leaves the work to `jobs` and answers; guards are elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated, Any
from urllib.parse import quote

from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from taro_rt import __version__
from taro_rt.engines.errors import OptionsError, TaroError
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.runtime.service.asks import Kind, read_ask, read_json, sentences, video_of
from taro_rt.runtime.service.description import body_of, describe, refusals
from taro_rt.runtime.service.documents import FORMATS, Accepted, Health, Info, JobRecord
from taro_rt.runtime.service.events import event_lines, wait_for_end
from taro_rt.runtime.service.folders import Folders
from taro_rt.runtime.service.jobs import Jobs
from taro_rt.runtime.service.kept import UPLOAD, Shelf, Video
from taro_rt.runtime.service.page import page
from taro_rt.runtime.service.refusals import Json, Refusal, refuse
from taro_rt.runtime.service.settings import Settings
from taro_rt.runtime.service.task import Task
from taro_rt.runtime.service.uploads import Form, boundary_of

CANCEL_S = 2.0
"""How long the answer to a cancellation may wait for its success."""
BLOCK = 1 << 18
MEDIA = {".wav": "audio/wav", ".mkv": "video/x-matroska", ".mov": "video/quicktime", ".webm": "video/webm"}

Name = Annotated[str, InPath(alias="job", description="What the answer to a request called the job.")]
Take = Annotated[int, InPath(description="From 1 on.", ge=1, le=100)]


def make_app(pipeline: Pipeline, jobs: Jobs, shelf: Shelf, settings: Settings) -> FastAPI:
    """The service's application, without its guard."""
    app = FastAPI(
        title="taro-rt",
        version=__version__,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        default_response_class=Json,
    )
    folders = Folders(settings.allow)
    document, html, policy = Info(**_info(pipeline, settings)), *page()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    @app.get("/v1/health", responses=refusals(403))
    async def health() -> Health:
        """Whether the service answers, and how busy it is. Needs no token."""
        running, waiting = jobs.counts()
        return Health(ok=True, running=running, waiting=waiting)

    @app.get("/v1/info", responses=refusals(401, 403))
    async def info() -> Info:
        """What answers: version, bundle and its licence, backend, limits."""
        return document

    @app.post("/v1/generate", status_code=202, **body_of("generate"))
    async def generate(request: Request) -> Accepted:
        """Queue the making of a sound for a video."""
        return await accept("generate", request)

    @app.post("/v1/onsets", status_code=202, **body_of("onsets"))
    async def onsets(request: Request) -> Accepted:
        """Queue a look for onsets; edited, they go into the options of `/v1/generate`."""
        return await accept("onsets", request)

    @app.get("/v1/jobs/{job}", responses=refusals(401, 403, 404))
    async def read_job(name: Name) -> JobRecord:
        """The state of a job."""
        return JobRecord(**jobs.record(jobs.find(name)))

    @app.delete("/v1/jobs/{job}", responses=refusals(401, 403, 404))
    async def delete_job(name: Name) -> JobRecord:
        """Cancel a job that waits or runs; forget one that has ended, with its files."""
        task = jobs.find(name)
        jobs.cancel(task)
        await wait_for_end(jobs, task, CANCEL_S)
        return JobRecord(**jobs.record(task))

    @app.get(
        "/v1/jobs/{job}/events",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **refusals(401, 403, 404),
        },
    )
    async def events(name: Name) -> StreamingResponse:
        """The record of the job (`event: job`) now and at every change up to its end: server-sent events."""
        return StreamingResponse(event_lines(jobs, jobs.find(name)), media_type="text/event-stream")

    @app.get(
        "/v1/jobs/{job}/takes/{take}",
        response_class=StreamingResponse,
        responses={
            200: {"content": {kind: {"schema": {"type": "string"}} for kind in ("video/*", "audio/wav")}},
            **refusals(401, 403, 404, 409, 422),
        },
    )
    async def read_take(name: Name, take: Take) -> StreamingResponse:
        """A take's file: the video with its new sound, or the .wav."""
        return await run_sync(_take, jobs.find(name), take, folders)

    async def accept(kind: Kind, request: Request) -> Accepted:
        with jobs.place():  # before the body is read
            content = request.headers.get("content-type", "")
            form = content.partition(";")[0].strip().lower()
            if form == "multipart/form-data":
                task = await _accept_upload(kind, request)
            elif form == "application/json":
                asked = read_json(await request.body())
                video = _find(video_of(kind, asked))
                task = jobs.submit(read_ask(kind, asked, folders.resolve), video)
            else:
                raise Refusal(
                    415,
                    f"Content-Type: expected application/json or multipart/form-data, got {content[:80]!r}",
                )
        return Accepted(job=task.id, video=task.video.reference)

    async def _accept_upload(kind: Kind, request: Request) -> Task:
        with shelf.receiving() as folder:
            form = Form(boundary_of(request.headers["content-type"]), folder / "video", settings.max_upload)
            await form.read(request.stream())
            asked = read_json(bytes(form.document)) if form.has_document else {}
            ask = read_ask(kind, asked, folders.resolve, with_video=False)
            video = shelf.add(folder / "video", form.filename or "video")
        return jobs.submit(ask, video)

    def _find(text: str) -> Video:
        if text.startswith(UPLOAD):
            return shelf.find(text)
        path = folders.resolve(text)
        return Video(path, str(path), str(path))

    @app.exception_handler(TaroError)
    async def refused(request: Request, error: TaroError) -> Json:
        return refuse(error)

    @app.exception_handler(RequestValidationError)
    async def misshaped(request: Request, error: RequestValidationError) -> Json:
        return refuse(OptionsError(sentences(error.errors())))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Json:
        return refuse(Refusal(400, "the body ended early"))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Json:
        answer = refuse(Refusal(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))
        if error.status_code == 405:
            answer.headers["Allow"] = _methods(app, request.url.path)
        return answer

    describe(app)
    return app


def _methods(app: FastAPI, path: str) -> str:
    """What a path can be asked for; the router knows its first route only."""
    routes = [route for route in app.routes if isinstance(route, Route) and route.path_regex.match(path)]
    return ", ".join(sorted({method for route in routes for method in route.methods or ()}))


def _take(task: Task, take: int, folders: Folders) -> StreamingResponse:
    """The file as it is read. Raises `Refusal`."""
    if task.result is None:
        raise Refusal(409, f"{task.id}: expected a job that is done, got one that is {task.state}")
    takes = task.result.get("takes", [])
    if take > len(takes):
        raise Refusal(404, f"{task.id}: expected a take from 1 to {len(takes)}, got {take}")
    path = Path(takes[take - 1]["output"])
    if task.ask.output is not None:  # the caller's own folder: what lies there now may be a link
        path = folders.resolve(str(path))
    try:
        file = path.open("rb")
    except OSError as error:
        raise Refusal(404, f"{path.name}: the take is gone ({error.strerror}); make it again") from error
    n_bytes = file.seek(0, 2)
    file.seek(0)
    headers = {
        "Content-Length": str(n_bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.name, errors='replace')}",
    }
    return StreamingResponse(_blocks(file), headers=headers, media_type=MEDIA.get(path.suffix, "video/mp4"))


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while block := file.read(BLOCK):
            yield block


def _info(pipeline: Pipeline, settings: Settings) -> dict[str, Any]:
    told = asdict(pipeline.bundle.manifest)
    return {
        "version": __version__,
        "bundle": {key: told[key] for key in ("name", "version", "licence", "provenance", "sampler")},
        "computed": asdict(pipeline.engines.choice),
        "formats": list(FORMATS),
        "limits": {
            "max_upload": settings.max_upload,
            "max_waiting": settings.max_waiting,
            "keep_jobs": settings.keep_jobs,
            "keep_s": round(settings.keep_s),
        },
        "allow": [str(folder) for folder in settings.allow],
    }
