"""What a service is started with, checked before anything is loaded. Knows nothing of HTTP."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.options import number_faults

MIN_TOKEN = 16
MEBIBYTE = 1 << 20


def new_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Settings:
    """Raises `OptionsError`, naming every fault."""

    token: str = field(default_factory=new_token, repr=False)
    """What a request must carry as `Authorization: Bearer ...`."""
    host: str = "127.0.0.1"
    """A loopback address: nothing else may reach the service."""
    port: int = 8765
    """0: any free one."""
    allow: tuple[Path, ...] = ()
    """Folders whose files may be named in requests; resolved. None: uploads only."""
    max_upload: int = 1024 * MEBIBYTE
    """Bytes of one video that is sent."""
    max_waiting: int = 16
    """Jobs that wait for the one that runs; more are told to come again."""
    keep_jobs: int = 50
    """Ended jobs, with their files, that are kept; and as many uploads."""
    keep_s: float = 3600
    """How long they are kept after their end or last use."""
    keep_bytes: int = 4096 * MEBIBYTE
    """How much all kept files may take together; the newest is kept in any case."""

    def __post_init__(self) -> None:
        host = "127.0.0.1" if self.host == "localhost" else self.host
        object.__setattr__(self, "host", host)
        faults = [
            *_host(host),
            *_token(self.token),
            *number_faults("port", self.port, 0, 65535, whole=True, required=True),
            *number_faults("max_upload", self.max_upload, 1, whole=True, required=True),
            *number_faults("queue", self.max_waiting, 1, 10_000, whole=True, required=True),
            *number_faults("keep", self.keep_jobs, 1, 10_000, whole=True, required=True),
        ]
        for folder in self.allow:
            if not folder.is_dir():
                faults.append(f"allow: expected an existing folder, got {folder}")
        if faults:
            raise OptionsError("; ".join(faults))
        object.__setattr__(self, "allow", tuple(folder.resolve() for folder in self.allow))


def _host(host: str) -> list[str]:
    try:
        if ipaddress.ip_address(host).is_loopback:
            return []
    except ValueError:  # a name: whatever it leads to now, it may lead elsewhere later
        pass
    return [
        f"host: expected a loopback address (127.0.0.1 or ::1), got {host!r}; from elsewhere use a tunnel"
    ]


def _token(token: str) -> list[str]:
    if len(token) >= MIN_TOKEN and token.isascii() and token.isprintable() and " " not in token:
        return []
    return [f"token: expected at least {MIN_TOKEN} printable ASCII characters without spaces"]
