"""The JSON documents of requests and answers. Shapes only: ranges are those of the dataclasses behind them.

The limits stand in the OpenAPI description but are enforced where the command enforces them, so that the
sentence of an error is the same.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from taro_rt.runtime.finish import KEEPING, LIMITS, RATES_HZ
from taro_rt.runtime.options import METHODS
from taro_rt.runtime.plan import CONTAINERS
from taro_rt.runtime.source import LONGEST_S

FORMATS = ("video", "wav", *(suffix[1:] for suffix in CONTAINERS))
"""`video` is what suits the picture: mp4 wherever it can carry it."""
State = Literal["queued", "running", "done", "failed", "cancelled"]


def _told(description: str, **schema: Any) -> Any:
    return Field(description=description, json_schema_extra=schema)


def _asked(description: str, default: Any = None, **schema: Any) -> Any:
    return Field(default, description=description, json_schema_extra=_or_null(schema))


def _or_null(schema: dict[str, Any]) -> Any:
    """Puts limits where they belong in `anyOf: [{type: ...}, {type: null}]`."""

    def put(whole: dict[str, Any]) -> None:
        branches = whole.get("anyOf", [whole])
        target = next(branch for branch in branches if branch.get("type") != "null")
        target.update(schema)

    return put


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""JSON knows one kind of number: 2.0 is 2."""


class Strict(BaseModel):
    """No unknown keys, no strings for numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class OnsetDocument(Strict):
    """One moment at which something is struck."""

    time_s: float = _told("Seconds from the first displayed frame of the part.", minimum=0)
    strength: float = Field(default=0.9, json_schema_extra={"minimum": 0, "maximum": 1})


class Part(Strict):
    """Which part of a video is meant."""

    start_s: float = _asked("Seconds of the video to start at.", 0.0, minimum=0, maximum=LONGEST_S)
    end_s: float | None = _asked(
        "Seconds of the video to end at, after the start.", exclusiveMinimum=0, maximum=LONGEST_S
    )


class GenerateOptions(Part):
    """As the command's options of the same names; what is left out is the bundle's own default."""

    seed: Whole = _asked("Another seed, another sound.", 0, minimum=0)
    takes: Whole = _asked("How many sounds; take k has seed + k - 1.", 1, minimum=1, maximum=100)
    steps: Whole | None = _asked("Sampler steps.", minimum=1, maximum=10_000)
    guidance: float | None = _asked("Guidance scale.", minimum=0, maximum=1000)
    guidance_low: float | None = _asked("Guidance acts on times from here.", minimum=0, maximum=1)
    guidance_high: float | None = _asked("To here; 1 is noise, 0 sound.", minimum=0, maximum=1)
    guidance_every: Whole = _asked("Guide anew on every k-th guided step.", 1, minimum=1, maximum=1000)
    method: str | None = _asked("The sampler's method.", enum=list(METHODS))
    onsets: list[OnsetDocument] | None = Field(
        default=None,
        description="Edited onsets: they replace what is seen in the picture, and the sound follows.",
        max_length=10_000,
    )


class Output(Strict):
    """What is written, and how it sounds."""

    format: str = _asked("What is made.", "video", enum=list(FORMATS))
    path: str | None = _asked(
        "Where the result is written, below an allowed folder; its suffix takes the place of `format`. "
        "Several takes are numbered. Left out: kept by the service for a while.",
    )
    force: bool = _asked("Replace an existing file at `path`.", False)
    audio: str = _asked("What becomes of the video's own sound.", "replace", enum=list(KEEPING))
    gain_db: float = _asked("Louder or quieter.", 0.0, minimum=LIMITS["gain"][0], maximum=LIMITS["gain"][1])
    loudness: float | None = _asked(
        "LUFS; null leaves the level.",
        -23.0,
        minimum=LIMITS["loudness"][0],
        maximum=LIMITS["loudness"][1],
    )
    rate_hz: Whole | None = _asked("Samples per second in the file.", enum=list(RATES_HZ))
    channels: Whole | None = _asked("1, or 2 for the same sound on both.", enum=[1, 2])


VIDEO = "An absolute path below an allowed folder, or `upload:...` as an earlier answer named it."


class GenerateRequest(Strict):
    """Give a video its sound."""

    video: str = Field(description=VIDEO)
    options: GenerateOptions = GenerateOptions()
    output: Output = Output()


class OnsetsRequest(Strict):
    """Find when something is struck in a video."""

    video: str = Field(description=VIDEO)
    options: Part = Part()


class GenerateForm(Strict):
    """`request` beside an upload: a `GenerateRequest` without its video."""

    options: GenerateOptions = GenerateOptions()
    output: Output = Output()


class OnsetsForm(Strict):
    """`request` beside an upload: an `OnsetsRequest` without its video."""

    options: Part = Part()


class Accepted(BaseModel):
    """A job was queued."""

    job: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    video: str
    """What later requests may call the video."""


class Fault(BaseModel):
    """Equal to what the command says with --json."""

    type: str
    message: str
    exit_code: int


class ErrorDocument(BaseModel):
    """Every refusal."""

    error: Fault


class JobRecord(BaseModel):
    """The state of a job."""

    job: str
    kind: Literal["generate", "onsets"]
    video: str
    state: State
    position: int | None
    """Jobs that are done before it, while it is queued."""
    stage: str | None
    progress: float
    """0 to 1 within the stage."""
    result: dict[str, Any] | None
    error: Fault | None


class Health(BaseModel):
    """The service answers."""

    ok: bool
    running: int
    waiting: int


class Info(BaseModel):
    """What answers: program, bundle, backend, limits."""

    version: str
    bundle: dict[str, Any]
    computed: dict[str, Any]
    formats: list[str]
    limits: dict[str, int]
    allow: list[str]
