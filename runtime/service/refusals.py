"""How a request is refused: an HTTP status, and the record of an error as the command line gives it."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import JSONResponse

from taro_rt.engines.errors import OptionsError, TaroError

MEANINGS = {
    400: "the body cannot be read",
    401: "the token is missing or wrong",
    403: "a path outside the allowed folders, or a foreign Host or Origin",
    404: "no such job, take or upload; old ones are dropped",
    409: "the job has no result (yet)",
    413: "the upload or document is too large",
    415: "neither JSON nor a multipart form",
    422: "an option is out of its range, or the document has another shape",
    429: "too many jobs wait; come again after Retry-After seconds",
    503: "the service is stopping",
}


class Refusal(OptionsError):
    """A request that is not served. `status` is HTTP's; `retry_s` goes into Retry-After."""

    def __init__(self, status: int, message: str, retry_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_s = status, retry_s


class Json(JSONResponse):
    """JSON in ASCII: file names need not be valid Unicode."""

    def render(self, content: Any) -> bytes:
        """See `JSONResponse`."""
        return json.dumps(content, allow_nan=False).encode("ascii")


def fault(error: TaroError) -> dict[str, Any]:
    """The record of an error: type, sentence and exit code, equal to those of the command with --json."""
    message = " ".join(str(error).split())
    return {"type": type(error).__name__, "message": message, "exit_code": error.exit_code}


def refuse(error: TaroError) -> Json:
    """The response to a request that fails at once."""
    status = error.status if isinstance(error, Refusal) else 422
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Refusal) and error.retry_s is not None:
        headers["Retry-After"] = str(error.retry_s)
    return Json({"error": fault(error)}, status, headers)
