"""A benchmark's record as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Record = dict[str, Any]


def lines(record: Record) -> Iterator[str]:
    """What `taro-rt bench` prints."""
    device, work, roofline = record["device"], record["workload"], record["roofline"]
    sampler = work["sampler"]
    rates = ", ".join(f"{rate} GFLOP/s {name}" for name, rate in matrix_rates(roofline))
    yield f"{device['cores']} cores, {device['processor']}, {device['vectors']}, {work['threads']} threads"
    yield f"roofline: {rates}, copy {roofline['copy_gb_s']:.0f} GB/s"
    yield (
        f"{work['seconds']:g} s, {work['height']} lines, bundle {work['bundle']}, {sampler['steps']} steps, "
        f"guidance {sampler['guidance']:g}, {work['takes']} take(s); seconds"
    )
    yield ""
    yield "exact: the same mathematics"
    yield from table(exact_rows(record["exact"]))
    if takes := record["takes"]:
        low, high = takes["ratio_from_to"]
        yield f"{takes['takes']} takes at once, {takes['name']}: {takes['wall_s']['p50']:.2f}, " + (
            f"{takes['ratio']:.2f} times as long as {takes['beside']} ({low:.2f} to {high:.2f} in turn)"
        )
    if record["fast"]:
        yield ""
        yield "fast: another sound (README: what each setting costs)"
        yield from table(exact_rows(record["fast"]))


def matrix_rates(roofline: Record) -> Iterator[tuple[str, str]]:
    """Each precision and its GFLOP/s, whole numbers from 10 on."""
    for precision, rate in roofline["gemm_gflops"].items():
        yield precision, f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


def exact_rows(rows: Sequence[Record]) -> list[list[str]]:
    """Head and cells of the table of variants."""
    stages = list(next((row["stages"] for row in rows if row["timed"]), {}))
    head = ["", "ratio", "p50", "p90", "p99", "runs", "cold", "load", "MB", "GFLOP/s", "of roofline"]
    return [[*head, "networks", *stages], *(_cells(row, stages) for row in rows)]


def _cells(row: Record, stages: Sequence[str]) -> list[str]:
    if not row["timed"]:
        return [row["name"], f"not timed: {row['why_not']}"]
    wall = row["wall_s"]
    return [
        row["name"],
        f"{row['ratio']:.2f}" if "ratio" in row else "",
        *(f"{wall[q]:.2f}" for q in ("p50", "p90", "p99")),
        str(row["runs"]),
        f"{row['cold_s']:.2f}",
        f"{row['load_s']:.2f}",
        f"{row['peak_mb']:.0f}" if row["peak_mb"] else "",
        f"{row['gflops']:.0f}",
        f"{row['of_roofline']:.0%}" if "of_roofline" in row else "",
        of_networks(row),
        *(_stage(row["stages"][stage]) for stage in stages),
    ]


def of_networks(row: Record) -> str:
    """Per cent of the roofline over the stages that it bounds: without reading and writing the video."""
    bounded = [stage for stage in row["stages"].values() if "of_roofline" in stage]
    took = sum(stage["p50"] for stage in bounded)
    return f"{sum(stage['p50'] * stage['of_roofline'] for stage in bounded) / took:.0%}" if took else ""


def _stage(stage: Record) -> str:
    share = f" ({stage['of_roofline']:.0%})" if "of_roofline" in stage else ""
    return f"{stage['p50']:.2f}{share}"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns of equal width, text left and numbers right; a row of two cells runs on."""
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(len(row[k]) for row in full) for k in range(len(rows[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    for row in rows:
        first, *rest = row
        cells = [cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True)] if row in full else rest
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()
