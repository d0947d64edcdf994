"""The `taro-rt` command. Everything heavy is imported inside a command, so that --help is instant."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from taro_rt import __version__
from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.arguments import (
    Backend,
    BundleOption,
    Device,
    End,
    Force,
    Json,
    Precision,
    Start,
    Threads,
    Traceback,
    Video,
)
from taro_rt.runtime.terminal import session, show, show_each, warn
from taro_rt.runtime.tools import bench, doctor, export, info, plans, serve

if TYPE_CHECKING:
    from taro_rt.runtime.finish import Keeping
    from taro_rt.runtime.options import Method

app = typer.Typer(
    name="taro-rt",
    help="Sound for silent video, on a plain CPU or an NVIDIA GPU.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def generate(
    videos: Annotated[
        list[Path],
        typer.Argument(
            metavar="VIDEO...",
            help="Video files, folders of them, or quoted patterns.",
            show_default=False,
            readable=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="A video, or a .wav for the sound alone; else VIDEO.taro.mp4 beside it."
        ),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where outputs go; made if missing.", readable=False)
    ] = None,
    skip_existing: Annotated[bool, typer.Option(help="Leave videos whose output exists.")] = False,
    start: Start = 0.0,
    end: End = None,
    within: Annotated[
        Path | None,
        typer.Option(
            metavar="WAV",
            help="A sound made of the whole video before: only from --start to --end it is made anew.",
            readable=False,
        ),
    ] = None,
    audio: Annotated[
        str, typer.Option(help="The video's own sound: replace, mix, duck or keep-as-second-track.")
    ] = "replace",
    gain: Annotated[float, typer.Option(metavar="DB", help="Louder or quieter by so many dB.")] = 0.0,
    loudness: Annotated[str, typer.Option(metavar="LUFS", help="Level of the new sound, or off.")] = "-23",
    rate: Annotated[int | None, typer.Option(metavar="HZ", help="16000, 44100 or 48000.")] = None,
    channels: Annotated[int | None, typer.Option(help="1, or 2 for the same sound on both.")] = None,
    bundle: BundleOption = "default",
    backend: Backend = "auto",
    seed: Annotated[int, typer.Option(help="Another seed, another sound.")] = 0,
    takes: Annotated[int, typer.Option(help="How many sounds; take k has seed + k.")] = 1,
    steps: Annotated[int | None, typer.Option(help="Sampler steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    guidance_low: Annotated[float | None, typer.Option(help="Guidance acts on times from here.")] = None,
    guidance_high: Annotated[float | None, typer.Option(help="To here; 1 is noise, 0 sound.")] = None,
    guidance_every: Annotated[
        int, typer.Option(metavar="K", help="Guide anew on every K-th guided step: faster, less like it.")
    ] = 1,
    method: Annotated[str | None, typer.Option(help="sde, ode, heun, dpm++ or dpm++2m.")] = None,
    onsets: Annotated[
        Path | None,
        typer.Option("--onsets", help="Onset times to use, as `taro-rt onsets` writes them.", readable=False),
    ] = None,
    exports: Annotated[
        list[str] | None,
        typer.Option(
            "--export", metavar="KIND=FILE", help="For an editor: otio=X.otio, mlt=X.mlt or bwf=X.wav."
        ),
    ] = None,
    device: Device = None,
    threads: Threads = None,
    precision: Precision = "auto",
    force: Force = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Give VIDEO its sound; of several, one after the other."""
    with session(json, traceback) as progress:
        from taro_rt.runtime.batch import expand, generate_many, is_many
        from taro_rt.runtime.commands import Job, Machine, generate_file
        from taro_rt.runtime.finish import Finish, read_loudness
        from taro_rt.runtime.handoff import read_exports
        from taro_rt.runtime.onsets import read_onsets
        from taro_rt.runtime.options import Options
        from taro_rt.runtime.retake import regenerate_file
        from taro_rt.runtime.source import Span

        options = Options(
            steps=steps,
            guidance=guidance,
            guidance_low=guidance_low,
            guidance_high=guidance_high,
            guidance_every=guidance_every,
            method=cast("Method | None", method),
            seed=seed,
            takes=takes,
            onsets=read_onsets(onsets, 0.0 if within else start) if onsets else None,
        )
        finish = Finish(cast("Keeping", audio), gain, read_loudness(loudness), rate, channels)
        job = Job(options, finish, Span(start, end), force, read_exports(exports or ()))
        with Machine(bundle, backend, device, threads, precision) as machine:
            if is_many(videos) or out_dir is not None or skip_existing:
                if within is not None:
                    raise OptionsError("within: expected one video and -o, got several, or --out-dir")
                if output is not None:
                    raise OptionsError("output: expected --out-dir for several videos, got --output")
                if exports:
                    raise OptionsError("export: expected one video without --out-dir; run the videos apart")
                records = generate_many(machine, expand(videos), out_dir, job, skip_existing, progress)
                exit_code = show_each(records, progress, json)
            else:
                record, warnings = (
                    generate_file(machine, videos[0], output, job, progress)
                    if within is None
                    else regenerate_file(machine, videos[0], within, output, job, progress)
                )
                progress.close()
                warn(() if json else warnings)
                written = [[take["output"], *take.get("exports", {}).values()] for take in record["takes"]]
                show(record, json, [name for names in written for name in names])
                exit_code = 0
    raise typer.Exit(exit_code)


@app.command()
def onsets(
    video: Video,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the JSON to this file.")
    ] = None,
    start: Start = 0.0,
    end: End = None,
    bundle: BundleOption = "default",
    backend: Backend = "auto",
    device: Device = None,
    threads: Threads = None,
    precision: Precision = "auto",
    force: Force = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """When something is struck in VIDEO: onset times and the curve behind them, as JSON."""
    with session(json, traceback) as progress:
        from taro_rt.runtime.commands import Job, Machine, find_onsets
        from taro_rt.runtime.source import Span

        job = Job(span=Span(start, end), force=force)
        with Machine(bundle, backend, device, threads, precision) as machine:
            record, warnings = find_onsets(machine, video, output, job, progress)
    warn(() if json else warnings)
    if output is None:
        typer.echo(json_module.dumps(record, indent=None if json else 1))
    else:
        show({"output": str(output), "onsets": record["onsets"]}, json, [str(output)])


for tool in (export, plans, info, bench, serve, doctor):
    app.command()(tool)


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
