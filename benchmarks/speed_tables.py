"""The tables of `taro-rt bench`'s records: all of them for docs/speed.md, a row of each for the README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from taro_rt.runtime.bench.show import matrix_rates, of_networks

ROOT = Path(__file__).resolve().parents[1]
TAKES = "-takes"
"""End of the name of a record that is kept for its takes alone."""
PAPER_S = {
    "SpecVQGAN": (3.58, 308),
    "Im2Wav": (218.40, 448),
    "Diff-Foley": (3.00, 860),
    "See & Hear": (18.25, 1099),
    "FoleyCrafter": (2.96, 1252),
    "Frieren": (0.52, 372),
    "MDSGen": (1.56, 142),
    "TARO": (0.58, 258),
}
"""Table 1 of the paper: seconds on one A100 at batch 1, millions of parameters."""


def summary(results: Path) -> str:
    """The README's block on speed: a row a record, with what was asked for."""
    lines = [
        "| 8 s of 720 lines, file to file, warm | processor | released recipe, s | exact, s | times | of the "
        "matrix rate | of it, the five networks | load, s | fast, s | times | several takes, times one |",
        "|---" * 11 + "|",
    ]
    for path in records(results):
        record = read(path)
        base, exact = record["exact"][0], fastest(record["exact"])
        fast = fastest(record["fast"]) if record["fast"] else None
        settings = fast["name"].removeprefix(exact["name"]).strip(", ") if fast else ""
        faster = f"{fast['wall_s']['p50']:.2f} ({settings})" if fast else ""
        is_makeshift = base.get("backend") == "released" and base["precision"] == "float32"
        in_float32 = " (float32)" if is_makeshift else ""
        seconds = f"{base['wall_s']['p50']:.2f}{in_float32}" if base["timed"] else "not timed"
        takes, device = takes_of(path, record), record["device"]
        several = f"{takes['takes']}: {takes['ratio']:.2f}" if takes else ""
        lines.append(
            f"| {record['workload']['bundle']} | {device['processor']}, {device['vectors']} "
            f"| {seconds} | {exact['wall_s']['p50']:.2f} ({exact['name']}) | {ratio(exact)} "
            f"| {exact.get('of_roofline', 0):.0%} | {of_networks(exact)} | {exact['load_s']:.1f} "
            f"| {faster} | {ratio(fast) if fast else ''} | {several} |"
        )
    return "\n".join(lines)


def fastest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of least time of those that are ours."""
    ours = [row for row in rows if row["timed"] and row.get("backend") != "released"]
    return min(ours, key=lambda row: float(row["wall_s"]["p50"]))


def records(results: Path) -> list[Path]:
    """Those of `taro-rt bench` on every device, but for what only measures takes beside another."""
    return [path for path in sorted(results.glob("*/bench*.json")) if not path.stem.endswith(TAKES)]


def takes_of(path: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """What several takes cost: said by the record, or by the one of a run of its own beside it."""
    beside = path.with_stem(path.stem + TAKES)
    return read(beside)["takes"] if beside.exists() else record["takes"]


def tables(results: Path) -> str:
    """The block of docs/speed.md: all that the records say."""
    parts = []
    for path in records(results):
        record, costs = read(path), sorted(results.glob("*/fast.json"))  # likeness is that of any device
        found = read(costs[0]) if costs else None
        lost, n_clips = settings_of(found), found["clips"] if found else 0
        picture = f"{path.stem}-{path.parent.name}.svg"
        parts += [
            f"## {record['workload']['bundle']}, {record['device']['vectors']}",
            heading(record),
            exact_table(record["exact"]),
            stage_table(record["exact"]),
            f"![Seconds by stage, and the ratio to the released recipe]({picture})",
            *([takes_line(takes)] if (takes := takes_of(path, record)) else []),
            *([fast_table(record["fast"], lost, n_clips)] if record["fast"] else []),
        ]
    return "\n\n".join([*parts, "## The paper's own figures", quoted()])


def settings_of(record: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What fast settings cost, if the record is one of the embedded bundle as it is now."""
    manifest = json.loads((ROOT / "engines/default/manifest.json").read_text("utf-8"))
    now = manifest["files"]["transformer.safetensors"]["sha256"]
    return record["settings"] if record and record["transformer_sha256"] == now else {}


def heading(record: dict[str, Any]) -> str:
    device, work, roofline = record["device"], record["workload"], record["roofline"]
    rates = " and ".join(f"{rate} in {name}" for name, rate in matrix_rates(roofline))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"**Bundle {work['bundle']}** ({work['parameters_mb']} MB), {work['seconds']:g} s of "
        f"{work['height']}-line video to a file with sound, {work['sampler']['steps']} steps, "
        f"guidance {work['sampler']['guidance']:g}, takes at once: {work['takes']}, "
        f"{work['threads']} threads of {device['cores']} cores {device['processor']} "
        f"({device['vectors']}). Products of large matrices reach {rates} GFLOP/s here, copying "
        f"{roofline['copy_gb_s']:.0f} GB/s. {versions}. Commit {record['commit'][:7]}."
    )


def exact_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| exact: the same mathematics | ratio | s, p50 | p90 | p99 | runs | from process start, s "
        "| load, s (empty cache) | peak MB | of the roofline | of it, the networks "
        "| off float32, relative rms |",
        "|---" * 12 + "|",
    ]
    for row in rows:
        if not row["timed"]:
            lines.append(f"| {row['name']} | not timed: {row['why_not']} |" + " |" * 10)
            continue
        wall = row["wall_s"]
        share = f"{row['of_roofline']:.0%}" if "of_roofline" in row else ""
        off = f"{row['deviation']['trajectory']:.2%}" if "deviation" in row else ""
        lines.append(
            f"| {row['name']} | {ratio(row)} "
            f"| {wall['p50']:.2f} | {wall['p90']:.2f} | {wall['p99']:.2f} | {row['runs']} "
            f"| {row['cold_s']:.1f} | {row['load_s']:.2f} ({row['load_empty_cache_s']:.1f}) "
            f"| {row['peak_mb']:.0f} | {share} | {of_networks(row)} | {off} |"
        )
    return "\n".join(lines)


def ratio(row: dict[str, Any]) -> str:
    """To row one; nothing where that was not timed."""
    return f"{row['ratio']:.2f}" if "ratio" in row else ""


def takes_line(takes: dict[str, Any]) -> str:
    low, high = takes["ratio_from_to"]
    return (
        f"{takes['takes']} takes at once ({takes['name']}): {takes['wall_s']['p50']:.2f} s, "
        f"{takes['ratio']:.2f} times as long as {takes['beside']} "
        f"({low:.2f} to {high:.2f}, pairs in turn: {takes['runs']})."
    )


def stage_table(rows: list[dict[str, Any]]) -> str:
    timed = [row for row in rows if row["timed"]]
    names = list(timed[0]["stages"]) if timed else []
    lines = [f"| s, p50 (of the roofline) | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row in timed:
        cells = [
            f"{s['p50']:.2f}" + (f" ({s['of_roofline']:.0%})" if "of_roofline" in s else "")
            for s in row["stages"].values()
        ]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fast_table(rows: list[dict[str, Any]], lost: dict[str, dict[str, Any]], n_clips: int) -> str:
    lines = [
        f"| fast: another sound | ratio | s, p50 | embedded bundle, {n_clips} held-out clips: onset F1 "
        "±100 ms | FD | class accuracy |",
        "|---|---|---|---|---|---|",
    ]
    if "exact" in lost:
        lines.append(f"| exact | | |{_figures(lost['exact'])}")
    for row in rows:
        key = _key(row["options"], row)
        alike = [one for one in lost.values() if _key(one["options"], one["computed"]) == key]
        cells = _figures(alike[0]) if alike else " not measured | | |"
        seconds = f"{row['wall_s']['p50']:.2f}" if row["timed"] else f"not timed: {row['why_not']}"
        lines.append(f"| {row['name']} | {ratio(row)} | {seconds} |{cells}")
    return "\n".join(lines)


def _key(options: dict[str, Any], computed: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """What a setting's sound depends on: bfloat16 and float32 of any backend count as one."""
    return options, computed["precision"] == "int8"


def _figures(setting: dict[str, Any]) -> str:
    made = setting["generated"]
    return f" {made['onset_f1']['100']:.2f} | {made['fd']:.2f} | {made['class_accuracy']:.0%} |"


def quoted() -> str:
    rows = [f"| {name} | {seconds:.2f} | {params} |" for name, (seconds, params) in PAPER_S.items()]
    return "\n".join(
        [
            "| quoted from the paper's Table 1, not measured here | s, one A100, batch 1 | parameters, M |",
            "|---|---|---|",
            *rows,
        ]
    )


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8")))
