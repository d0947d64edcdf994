"""From settings to a service that listens, and its orderly end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import uvicorn

from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.commands import Machine
from taro_rt.runtime.progress import Silent
from taro_rt.runtime.service.app import make_app
from taro_rt.runtime.service.guard import Guard
from taro_rt.runtime.service.jobs import Jobs
from taro_rt.runtime.service.kept import temporary_shelf
from taro_rt.runtime.service.settings import Settings

GRACE_S = 3
"""For answers that are on their way when the service is stopped."""


@dataclass(frozen=True)
class Address:
    """Where a service listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Of the page and, before /v1, of all routes."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class Server(uvicorn.Server):
    """Ends all jobs before it waits for those who follow them."""

    def __init__(self, config: uvicorn.Config, jobs: Jobs) -> None:
        super().__init__(config)
        self._jobs = jobs

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        self._jobs.stop()
        await super().shutdown(sockets)


def serve(machine: Machine, settings: Settings, ready: Callable[[Address, Server], None]) -> None:
    """Load the engines, listen until a signal or `should_exit`, then end jobs and remove all files.

    `ready` is told once connections are accepted; they wait until the loop runs. Raises `OptionsError` for an
    address that is taken, `BundleError` or `EngineError` for engines that do not load.
    """
    with _listening(settings) as (sock, address):
        pipeline = machine.pipeline(Silent())
        with temporary_shelf(settings) as shelf:
            jobs = Jobs(machine, settings, shelf)
            try:
                app = make_app(pipeline, jobs, shelf, settings)
                config = uvicorn.Config(
                    Guard(app, settings, address.port),
                    lifespan="off",
                    ws="none",
                    log_level="warning",
                    access_log=False,
                    server_header=False,
                    proxy_headers=False,
                    timeout_graceful_shutdown=GRACE_S,
                )
                server = Server(config, jobs)
                ready(address, server)
                with suppress(KeyboardInterrupt):  # the signal that ended it, which uvicorn raises again
                    server.run(sockets=[sock])
            finally:
                jobs.close()


@contextmanager
def _listening(settings: Settings) -> Iterator[tuple[socket.socket, Address]]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        sock = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise OptionsError(
            f"port: {settings.port} of {settings.host} cannot be had ({error.strerror}); "
            "choose another --port, or 0 for any free one"
        ) from error
    with sock:
        yield sock, Address(settings.host, sock.getsockname()[1])
