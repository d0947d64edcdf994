"""How a command speaks: results on stdout, progress and warnings on stderr, errors in one line, exit codes.

Light to import, so that --help is instant.
"""

from __future__ import annotations

import json as json_module
import sys
import traceback as traceback_module
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import typer

from taro_rt.engines.errors import Cancelled, TaroError

if TYPE_CHECKING:
    from taro_rt.runtime.progress import Reporter


@contextmanager
def session(json: bool, traceback: bool) -> Iterator[Reporter]:
    """Show progress, and turn our errors and Ctrl-C into one line and an exit code."""
    from taro_rt.runtime.interrupts import Interruptible, Interrupts

    progress = _reporter(json)
    fault: TaroError | None = None
    interrupted = Cancelled("interrupted: no unfinished output is left")
    with Interrupts() as interrupts:
        try:
            yield Interruptible(progress, interrupts)
        except TaroError as error:
            fault = interrupted if interrupts.asked and not isinstance(error, Cancelled) else error
        except KeyboardInterrupt:
            fault = interrupted
        except ImportError:  # what an extension module makes of an interrupt while it is imported
            if not interrupts.asked:
                raise
            fault = interrupted
        finally:
            progress.close()
    if fault is None:
        return
    if traceback:
        traceback_module.print_exception(fault)
    message = " ".join(str(fault).split())
    if json:
        record = {"type": type(fault).__name__, "message": message, "exit_code": fault.exit_code}
        _say(json_module.dumps({"error": record}))
    else:
        _remark(message)
    raise typer.Exit(fault.exit_code)


def show(record: dict[str, Any], json: bool, lines: Sequence[str]) -> None:
    """The result: the record, or lines for people."""
    _say(json_module.dumps(record) if json else "\n".join(lines))


def warn(warnings: Sequence[str]) -> None:
    """What the user should know, a line each."""
    for warning in warnings:
        _remark(f"warning: {warning}")


def show_each(records: Iterator[dict[str, Any]], progress: Reporter, json: bool) -> int:
    """Show the record of every video as it comes, then the sum of them; the exit code."""
    from taro_rt.runtime.batch import line, summary

    shown, interrupted = [], False
    try:
        for record in records:
            progress.close()
            warn(() if json else record.get("warnings", ()))
            show(record, json, [line(record)])
            shown.append(record)
    except (KeyboardInterrupt, Cancelled):
        interrupted = True
        progress.close()
    total = summary(shown) | ({"exit_code": Cancelled.exit_code} if interrupted else {})
    show(total, json, ["{written} written, {skipped} skipped, {failed} failed".format(**total)])
    if interrupted:
        raise Cancelled(f"interrupted: {total['written']} videos were written before")
    return total["exit_code"]


def _reporter(json: bool) -> Reporter:
    from taro_rt.runtime.progress import Bar, JsonLines, Silent

    if sys.stderr is None:  # closed by whoever started this process
        return Silent()
    return JsonLines(sys.stderr) if json else Bar(sys.stderr) if sys.stderr.isatty() else Silent()


def _say(text: str) -> None:
    try:
        typer.echo(text)
    except BrokenPipeError:  # nobody reads on, which Typer ends without a word
        raise
    except OSError as error:
        _remark(f"the result cannot be shown ({error.strerror})")
        raise typer.Exit(1) from error


def _remark(text: str) -> None:
    with suppress(OSError):  # what cannot be said on stderr cannot be said
        typer.echo(f"taro-rt: {text}", err=True)


def plain(value: Any) -> str:
    """Plain containers for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(part)}" for key, part in value.items())
    return ", ".join(map(plain, value)) if isinstance(value, list) else str(value)
