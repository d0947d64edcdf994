"""The `taro-rt` command. Everything heavy is imported inside a command, so that --help is instant."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from taro_rt import __version__
from taro_rt.engines.errors import BackendUnavailable, OptionsError
from taro_rt.runtime.terminal import plain, session, show, show_each, warn

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

Video = Annotated[
    Path, typer.Argument(metavar="VIDEO", help="A video file.", show_default=False, readable=False)
]
BundleOption = Annotated[str, typer.Option("--bundle", help='A bundle folder, or "default".')]
Backend = Annotated[str, typer.Option("--backend", help="auto, onnxruntime, openvino or eager.")]
Precision = Annotated[
    str,
    typer.Option("--precision", help="auto, float32, bfloat16 (openvino), int8 (another sound)."),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="CPU threads; all physical cores if left out."),
]
Start = Annotated[
    float,
    typer.Option(metavar="S", help="Seconds of the video to start at: with the first frame from there on."),
]
End = Annotated[float | None, typer.Option(metavar="S", help="Seconds of the video to end at.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Result and progress as JSON.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")]


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
    with session(json, traceback) as progress:
        try:
            from taro_rt.export.layouts import Released
            from taro_rt.export.published import export_published, read_sizes
        except ModuleNotFoundError as error:
            raise BackendUnavailable(f"export needs {error.name}: pip install 'taro-rt[export]'") from error
        files = Released(taro, visual, onset, audioldm2)
        config = read_sizes(networks) if networks else None
        record = export_published(files, output, config, storage, force, progress)
    skipped = [f"skipped of {file}: {names}" for file, names in record["skipped"].items()]
    show(record, json, [record["bundle"], *skipped, f"licence: {record['licence']}"])


@app.command()
def info(
    bundle: Annotated[str, typer.Argument(help='A bundle folder, or "default".')] = "default",
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """What is in a bundle: sizes, sampler defaults, files, where the weights come from, their licence."""
    with session(json, traceback):
        from taro_rt.runtime.doctor import describe_bundle

        record = describe_bundle(bundle)
    show(record, json, [f"{key}: {plain(value)}" for key, value in record.items()])


@app.command()
def bench(
    bundle: BundleOption = "default",
    backend: Annotated[
        str, typer.Option("--backend", help="Measure this one only, beside the baseline.")
    ] = "auto",
    runs: Annotated[
        int | None, typer.Option(help="Warm runs of each row; else as many as fit in 20 s, 3 to 30.")
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="Length of the video.")] = 8.0,
    size: Annotated[int, typer.Option(metavar="LINES", help="Height of its picture.")] = 720,
    takes: Annotated[int, typer.Option(help="Sounds per run.")] = 1,
    threads: Threads = None,
    fast: Annotated[bool, typer.Option(help="Measure the settings that change the sound, too.")] = True,
    more_takes: Annotated[
        int, typer.Option(help="Measure so many takes at once, too, on the fastest exact row; 1 for not.")
    ] = 4,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the record here as JSON.", readable=False)
    ] = None,
    force: Force = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """What each backend costs on this machine, by stage and from file to file; use an idle machine."""
    with session(json, traceback) as progress:
        from taro_rt.runtime.bench.run import Plan, measure
        from taro_rt.runtime.bench.show import lines
        from taro_rt.runtime.files import atomic_output, check_output

        if output:
            check_output(output, force)
        plan = Plan(bundle, backend, runs, seconds, size, takes, threads, fast, more_takes)
        record = measure(plan, progress)
        if output:
            with atomic_output(output, force) as path:
                path.write_text(json_module.dumps(record, indent=1) + "\n", encoding="utf-8")
    show(record, json, list(lines(record)))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="A loopback address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any free one.")] = 8765,
    token: Annotated[
        str | None,
        typer.Option(envvar="TARO_TOKEN", help="What requests must carry; made anew if left out."),
    ] = None,
    allow: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="A folder whose files requests may name; repeatable.", readable=False
        ),
    ] = None,
    max_upload: Annotated[int, typer.Option(metavar="MIB", help="Size of a video that is sent.")] = 1024,
    queue: Annotated[int, typer.Option(help="How many jobs may wait.")] = 16,
    keep: Annotated[int, typer.Option(help="How many ended jobs and uploads are kept, for an hour.")] = 50,
    bundle: BundleOption = "default",
    backend: Backend = "auto",
    device: Device = None,
    threads: Threads = None,
    precision: Precision = "auto",
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Do the same over HTTP for programs on this machine, with a page to try it; Ctrl-C ends it."""
    with session(json, traceback):
        try:
            from taro_rt.runtime.service.server import Address, Server, serve
        except ModuleNotFoundError as error:
            raise BackendUnavailable(f"serve needs {error.name}: pip install 'taro-rt[serve]'") from error
        from taro_rt.runtime.commands import Machine
        from taro_rt.runtime.service.settings import MEBIBYTE, Settings, new_token

        settings = Settings(
            token=token or new_token(),
            host=host,
            port=port,
            allow=tuple(allow or ()),
            max_upload=max_upload * MEBIBYTE,
            max_waiting=queue,
            keep_jobs=keep,
        )

        def ready(address: Address, server: Server) -> None:
            made = {} if token else {"token": settings.token}
            page = f"{address.url}/#token={settings.token}" if made else f"{address.url}/#token=..."
            show(
                {"url": address.url, **made}, json, [f"page: {page}", *(f"token: {t}" for t in made.values())]
            )

        with Machine(bundle, backend, device, threads, precision) as machine:
            serve(machine, settings, ready)


@app.command()
def doctor(json: Json = False, traceback: Traceback = False) -> None:
    """Check this installation: packages, backends, the default bundle, and a one-step generation."""
    with session(json, traceback):
        from taro_rt.runtime.doctor import examine

        checks = list(examine())
    lines = [f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}" for check in checks]
    failed = next((check for check in checks if not check.ok), None)
    record = {"ok": failed is None, "checks": [check.as_json() for check in checks]}
    show(record, json, lines)
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
