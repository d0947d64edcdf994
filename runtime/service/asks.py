"""From the documents of a request to what the command would do: `Ask`. What can be is checked here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, cast

from pydantic import ValidationError

from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.commands import Job, Machine, Record, Warnings, find_onsets, generate_file
from taro_rt.runtime.finish import Finish, Keeping
from taro_rt.runtime.onsets import Onset
from taro_rt.runtime.options import Method, Options
from taro_rt.runtime.plan import check_suffix, default_suffix
from taro_rt.runtime.progress import Progress
from taro_rt.runtime.service.documents import (
    FORMATS,
    GenerateForm,
    GenerateOptions,
    GenerateRequest,
    OnsetsForm,
    OnsetsRequest,
    Output,
    Strict,
)
from taro_rt.runtime.service.refusals import Refusal
from taro_rt.runtime.source import Span

Kind = Literal["generate", "onsets"]
Shape = TypeVar("Shape", bound=Strict)


@dataclass(frozen=True)
class Ask:
    """What to do with a video that is not known yet."""

    kind: Kind
    job: Job
    format: str = "video"
    output: Path | None = None
    """A file of the caller's own; None: kept by the service."""

    def work(
        self, machine: Machine, video: Path, name: str, folder: Path, progress: Progress
    ) -> tuple[Record, Warnings]:
        """Do it, as the command does; results that are nobody's own go to `folder`, called after `name`."""
        if self.kind == "onsets":
            return find_onsets(machine, video, None, self.job, progress)
        output = self.output
        if output is None:
            suffix = default_suffix(video) if self.format == "video" else f".{self.format}"
            output = folder / f"{Path(name).stem}.taro{suffix}"
        return generate_file(machine, video, output, self.job, progress)


def read_json(body: bytes) -> Any:
    """Raises `Refusal` for what is no JSON."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of too many digits
        raise Refusal(400, f"the body: expected JSON ({error})") from None


def video_of(kind: Kind, document: Any) -> str:
    """What a request without upload calls its video. Raises `OptionsError` for another shape."""
    shaped = _shaped(GenerateRequest, document) if kind == "generate" else _shaped(OnsetsRequest, document)
    return shaped.video


def read_ask(kind: Kind, document: Any, resolve: Callable[[str], Path], with_video: bool = True) -> Ask:
    """What is asked for, from the document of a request, which names its video or comes beside it.

    `resolve` gives the file of an output's path. Raises `OptionsError`, also what `resolve` does.
    """
    if with_video and isinstance(document, dict):
        document = {key: value for key, value in document.items() if key != "video"}
    if kind == "onsets":
        part = _shaped(OnsetsForm, document).options
        return Ask(kind, Job(span=Span(part.start_s, part.end_s)))
    asked = _shaped(GenerateForm, document)
    options, output = asked.options, asked.output
    path = None if output.path is None else resolve(output.path)
    if path is not None:
        check_suffix(path)
    if output.format not in FORMATS:
        raise OptionsError(f"format: expected {', '.join(FORMATS)}, got {output.format!r}")
    job = Job(_options(options), _finish(output), Span(options.start_s, options.end_s), output.force)
    return Ask(kind, job, output.format, path)


def _options(asked: GenerateOptions) -> Options:
    onsets = None
    if asked.onsets is not None:
        onsets = tuple(
            _onset(index, entry.time_s, entry.strength) for index, entry in enumerate(asked.onsets)
        )
    values = asked.model_dump(exclude={"onsets", "method", "start_s", "end_s"})
    return Options(**values, method=cast("Method | None", asked.method), onsets=onsets)


def _onset(index: int, time_s: float, strength: float) -> Onset:
    try:
        return Onset(time_s, strength)
    except OptionsError as error:
        raise OptionsError(f"onsets: onset {index}: {error}") from None


def _finish(output: Output) -> Finish:
    keeping = cast("Keeping", output.audio)
    return Finish(keeping, output.gain_db, output.loudness, output.rate_hz, output.channels)


def _shaped(shape: type[Shape], document: Any) -> Shape:
    try:
        return shape.model_validate(document)
    except ValidationError as error:
        raise OptionsError(sentences(error.errors())) from None


def sentences(faults: Sequence[Any]) -> str:
    """What pydantic found, in words."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'the document'}: {fault['msg']}, "
        f"got {str(fault['input'])[:80]!r}"
        for fault in faults[:10]
    )


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
