"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Video = Annotated[
    Path, typer.Argument(metavar="VIDEO", help="A video file.", show_default=False, readable=False)
]
BundleOption = Annotated[str, typer.Option("--bundle", help='A bundle folder, or "default".')]
Backend = Annotated[
    str, typer.Option("--backend", help="auto, cuda, tensorrt, onnxruntime, openvino or eager.")
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="auto, float32, bfloat16 (cuda, openvino), float16 (tensorrt); another sound: int8, fp8 (cuda).",
    ),
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
