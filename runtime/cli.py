"""The `taro-rt` command. Everything heavy is imported inside a command, so that --help is instant."""

from __future__ import annotations

import json as json_module
import sys
import traceback as traceback_module
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from taro_rt import __version__
from taro_rt.engines.errors import BackendUnavailable, Cancelled, TaroError

if TYPE_CHECKING:
    from taro_rt.runtime.options import Method
    from taro_rt.runtime.progress import Reporter

app = typer.Typer(
    name="taro-rt",
    help="Sound for silent video, on a plain CPU or an NVIDIA GPU.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Video = Annotated[
    Path, typer.Argument(metavar="VIDEO", help="A video file.", show_default=False, readable=False)
]
BundleOption = Annotated[str, typer.Option("--bundle", help='A bundle folder, or "default".')]
Backend = Annotated[str, typer.Option("--backend", help="auto, onnxruntime or eager.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda.")]
Threads = Annotated[
    int | None, typer.Option("--threads", help="CPU threads; all physical cores if left out.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Result and progress as JSON.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")]


@app.command()
def generate(
    video: Video,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="A video, or a .wav for the sound alone; else VIDEO.taro.mp4 beside it."
        ),
    ] = None,
    bundle: BundleOption = "default",
    backend: Backend = "auto",
    seed: Annotated[int, typer.Option(help="Another seed, another sound.")] = 0,
    takes: Annotated[int, typer.Option(help="How many sounds; take k has seed + k.")] = 1,
    steps: Annotated[int | None, typer.Option(help="Sampler steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    guidance_low: Annotated[float | None, typer.Option(help="Guidance acts on times from here.")] = None,
    guidance_high: Annotated[float | None, typer.Option(help="To here; 1 is noise, 0 sound.")] = None,
    method: Annotated[str | None, typer.Option(help="sde, ode or heun.")] = None,
    onsets: Annotated[
        Path | None,
        typer.Option("--onsets", help="Onset times to use, as `taro-rt onsets` writes them.", readable=False),
    ] = None,
    device: Device = None,
    threads: Threads = None,
    force: Force = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Give VIDEO its sound."""
    with _session(json, traceback) as progress:
        from taro_rt.runtime.commands import Source, generate_files
        from taro_rt.runtime.onsets import read_onsets
        from taro_rt.runtime.options import Options

        options = Options(
            steps=steps,
            guidance=guidance,
            guidance_low=guidance_low,
            guidance_high=guidance_high,
            method=cast("Method | None", method),
            seed=seed,
            takes=takes,
            onsets=read_onsets(onsets) if onsets else None,
        )
        source = Source(video, bundle, backend, device, threads)
        record, warnings = generate_files(source, output, options, force, progress)
    _warn(() if json else warnings)
    _print(record, json, [take["output"] for take in record["takes"]])


@app.command()
def onsets(
    video: Video,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the JSON to this file.")
    ] = None,
    bundle: BundleOption = "default",
    backend: Backend = "auto",
    device: Device = None,
    threads: Threads = None,
    force: Force = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """When something is struck in VIDEO: onset times and the curve behind them, as JSON."""
    with _session(json, traceback) as progress:
        from taro_rt.runtime.commands import Source, find_onsets

        record, warnings = find_onsets(
            Source(video, bundle, backend, device, threads), output, force, progress
        )
    _warn(() if json else warnings)
    if output is None:
        typer.echo(json_module.dumps(record, indent=None if json else 1))
    else:
        _print({"output": str(output), "onsets": record["onsets"]}, json, [str(output)])


@app.command()
def export(
    taro: Annotated[Path, typer.Option(help="taro_ckpt.pt, the transformer.", readable=False)],
    visual: Annotated[Path, typer.Option(help="cavp_epoch66.ckpt, the visual encoder.", readable=False)],
    onset: Annotated[Path, typer.Option(help="onset_model.ckpt, the onset network.", readable=False)],
    audioldm2: Annotated[
        Path, typer.Option(metavar="DIR", help="AudioLDM2's folder with vae/ and vocoder/.", readable=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="A new folder.")],
    storage: Annotated[str, typer.Option(help="float32, or float16 for half the size.")] = "float32",
    networks: Annotated[
        Path | None,
        typer.Option(
            help="Sizes of the networks as JSON, as in a bundle's manifest; the published ones if left out.",
            readable=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is already there.")] = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Turn the published weights into a bundle that --bundle takes."""
    with _session(json, traceback) as progress:
        try:
            from taro_rt.export.layouts import Released
            from taro_rt.export.published import export_published, read_sizes
        except ModuleNotFoundError as error:
            raise BackendUnavailable(f"export needs {error.name}: pip install 'taro-rt[export]'") from error
        files = Released(taro, visual, onset, audioldm2)
        config = read_sizes(networks) if networks else None
        record = export_published(files, output, config, storage, force, progress)
    skipped = [f"skipped of {file}: {names}" for file, names in record["skipped"].items()]
    _print(record, json, [record["bundle"], *skipped, f"licence: {record['licence']}"])


@app.command()
def info(
    bundle: Annotated[str, typer.Argument(help='A bundle folder, or "default".')] = "default",
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """What is in a bundle: sizes, sampler defaults, files, where the weights come from, their licence."""
    with _session(json, traceback):
        from taro_rt.runtime.doctor import describe_bundle

        record = describe_bundle(bundle)
    _print(record, json, [f"{key}: {_plain(value)}" for key, value in record.items()])


@app.command()
def doctor(json: Json = False, traceback: Traceback = False) -> None:
    """Check this installation: packages, backends, the default bundle, and a one-step generation."""
    with _session(json, traceback):
        from taro_rt.runtime.doctor import examine

        checks = list(examine())
    lines = [f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}" for check in checks]
    failed = next((check for check in checks if not check.ok), None)
    record = {"ok": failed is None, "checks": [check.as_json() for check in checks]}
    _print(record, json, lines)
    if failed:
        raise typer.Exit(failed.exit_code)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"taro-rt {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


@contextmanager
def _session(json: bool, traceback: bool) -> Iterator[Reporter]:
    """Show progress, and turn our errors and Ctrl-C into one line and an exit code."""
    from taro_rt.runtime.interrupts import Interruptible, Interrupts
    from taro_rt.runtime.progress import Bar, JsonLines, Silent

    progress: Reporter
    progress = JsonLines(sys.stderr) if json else Bar(sys.stderr) if sys.stderr.isatty() else Silent()
    fault: TaroError | None = None
    interrupted = Cancelled("interrupted: nothing was written")
    with Interrupts() as interrupts:
        try:
            yield Interruptible(progress, interrupts)
        except TaroError as error:
            fault = interrupted if interrupts.asked else error
        except KeyboardInterrupt:
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
        typer.echo(json_module.dumps({"error": record}))
    else:
        typer.echo(f"taro-rt: {message}", err=True)
    raise typer.Exit(fault.exit_code)


def _print(record: dict[str, Any], json: bool, lines: list[str]) -> None:
    typer.echo(json_module.dumps(record) if json else "\n".join(lines))


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        typer.echo(f"taro-rt: warning: {warning}", err=True)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)
