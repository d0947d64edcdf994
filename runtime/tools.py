"""The commands beside `generate` and `onsets`: bundles, measuring, the service, checks."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from taro_rt.engines.errors import BackendUnavailable
from taro_rt.runtime.arguments import (
    Backend,
    BundleOption,
    Device,
    Force,
    Json,
    Precision,
    Threads,
    Traceback,
)
from taro_rt.runtime.terminal import plain, session, show

if TYPE_CHECKING:
    from taro_rt.export.deploy import Precision as Narrow


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
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="Build TensorRT plans of it, too, as `taro-rt plans` does.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is already there.")] = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Turn the published weights into a bundle that --bundle takes."""
    with session(json, traceback) as progress:
        try:
            from taro_rt.export.layouts import Released
            from taro_rt.export.published import export_published, read_sizes

            if tensorrt:
                from taro_rt.export.tensorrt import build_plans, require

                require()  # before minutes of work
        except ModuleNotFoundError as error:
            raise BackendUnavailable(f"export needs {error.name}: pip install 'taro-rt[export]'") from error
        files = Released(taro, visual, onset, audioldm2)
        config = read_sizes(networks) if networks else None
        record = export_published(files, output, config, storage, force, progress)
        if tensorrt:
            from taro_rt.engines.bundle import Bundle

            made = build_plans(Bundle.open(output), tell=progress)
            record["plans"] = {name: str(path) for name, path in made.items()}
    skipped = [f"skipped of {file}: {names}" for file, names in record["skipped"].items()]
    show(record, json, [record["bundle"], *skipped, f"licence: {record['licence']}"])


def plans(
    bundle: BundleOption = "default",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Where plans go; the cache if left out."),
    ] = None,
    precision: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    level: Annotated[int, typer.Option(help="TensorRT's optimisation level, 0 to 5.")] = 3,
    plugins: Annotated[bool, typer.Option(help="With our kernels inside, where Triton is installed.")] = True,
    attention: Annotated[
        bool,
        typer.Option("--attention", help="With our attention kernel inside, too; not with --no-plugins."),
    ] = False,
    strip: Annotated[
        bool, typer.Option("--strip", help="Leave weights in ONNX files beside the plans.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Build anew what is already there.")] = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Build TensorRT plans of a bundle for this machine's GPU; --backend tensorrt reads them."""
    with session(json, traceback) as progress:
        try:
            from taro_rt.export.tensorrt import BuildOptions, build_plans
        except ModuleNotFoundError as error:
            raise BackendUnavailable(
                f"plans needs {error.name}: pip install 'taro-rt[trt,export]'"
            ) from error
        from taro_rt.engines.bundle import Bundle

        options = BuildOptions(cast("Narrow", precision), level, plugins, strip, force, attention)
        made = build_plans(Bundle.open(bundle), output, options, progress)
    show({name: str(path) for name, path in made.items()}, json, [str(path) for path in made.values()])


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
