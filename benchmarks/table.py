"""Writes the figures of the README from the committed records, so that none is typed by hand.

python benchmarks/table.py           rewrite README.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FIGURES = ("<!-- figures: benchmarks/table.py -->", "<!-- end of figures -->")
ABLATION = ("<!-- ablation: benchmarks/table.py -->", "<!-- end of ablation -->")
SPEED = ("<!-- speed: benchmarks/table.py -->", "<!-- end of speed -->")
ABLATION_COLUMNS = {
    "onset_f1_100": ("onset F1 ±100 ms", "{:.2f}"),
    "class_accuracy": ("kind heard right", "{:.0%}"),
    "fd": ("FD", "{:.2f}"),
    "fad": ("FAD", "{:.2f}"),
    "inception_score": ("IS", "{:.2f}"),
    "kl": ("KL", "{:.2f}"),
    "sync_accuracy": ("in sync", "{:.0%}"),
}
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


def figures() -> str:
    """The README's block of figures, from every device that has records."""
    lines = [
        "| measured | on | value |",
        "|---|---|---|",
    ]
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        lines += first_use(read(folder / "first_use.json")) + evaluation(read(folder / "evaluation.json"))
        lines += edits(read(folder / "edits.json")) + reconstruction(read(folder / "reconstruction.json"))
        lines += published(read(folder / "published.json")) + parity(read(folder / "parity.json"))
        lines += media(read(folder / "media.json")) + service(read(folder / "service.json"))
        lines += placement(read(folder / "placement.json"))
    return "\n".join(lines)


def placement(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    hosts = [name.split(",")[0] for name in record["lag_ms"]]
    worst = {host: max(abs(lag) for name, lag in record["lag_ms"].items() if name.split(",")[0] == host)
             for host in dict.fromkeys(hosts)}  # fmt: skip
    lags = ", ".join(f"{host} {lag:.2f} ms" for host, lag in worst.items())
    return [
        f"| lag of the sound behind its picture in an editor's mixdown, the largest of each | any | {lags} |"
    ]


def first_use(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    machine, run, usage = record["machine"], record["generate"], record["help"]
    on = f"{machine['cores']} cores, {machine['processor']}"
    return [
        f"| file to file, {record['workload']} | {on} | "
        f"{run['wall_s_median']:.1f} s ({run['wall_s_min']:.1f} to {run['wall_s_max']:.1f}), "
        f"peak {run['peak_mb']:.0f} MB |",
        f"| `taro-rt --help` | {on} | {usage['wall_s_median']:.2f} s |",
    ]


def published(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    machine, export, run = record["machine"], record["export"], record["generate"]
    on = f"{machine['cores']} cores, {machine['processor']}, {machine['vectors']}"
    return [
        f"| `taro-rt export` of files of the published size ({record['files_mb'] / 1000:.1f} GB) | {on} | "
        f"{export['wall_s']:.0f} s, peak {export['peak_mb'] / 1000:.1f} GB |",
        f"| file to file, {record['workload']} | {on} | {run['wall_s_median']:.0f} s "
        f"({run['wall_s_min']:.0f} to {run['wall_s_max']:.0f}), peak {run['peak_mb'] / 1000:.1f} GB |",
    ]


def media(record: dict[str, Any] | None) -> list[str]:
    if record is None or not {"memory", "fuzz"} <= record.keys():
        return []
    memory, fuzz, on = record["memory"], record["fuzz"], f"{record['machine']['cores']} cores"
    kept = "".join(f"; {audio} {memory[audio]['ratio']:.2f}" for audio in ("mix", "duck") if audio in memory)
    return [
        f"| peak memory, 1 h of video against 1 min ({memory['workload']}) | {on} | "
        f"{memory['hour']['peak_mb']:.0f} MB against {memory['minute']['peak_mb']:.0f} MB "
        f"({memory['ratio']:.2f} times{kept}) |",
        f"| broken videos through the whole command | {on} | {fuzz['files']} tried: "
        f"{fuzz['outcomes'].get('made', 0)} made, {fuzz['outcomes'].get('refused', 0)} refused, "
        f"{len(fuzz['faults'])} crashes, hangs, tracebacks or partial outputs |",
    ]


def service(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    cost, run, on = record["overhead"], record["load"], f"{record['machine']['cores']} cores"
    return [
        f"| what a request to a warm `taro-rt serve` takes longer than its work alone, p50 and p90 of "
        f"{cost['pairs']} pairs ({record['workload']}) | {on} | {cost['path_ms']['p50']:.1f} and "
        f"{cost['path_ms']['p90']:.1f} ms; with an upload of {cost['upload_bytes'] / 1e6:.1f} MB "
        f"{cost['upload_ms']['p50']:.1f} and {cost['upload_ms']['p90']:.1f} ms |",
        f"| {run['requests']} requests of {run['clients']} clients at once to it | {on} | "
        f"{run['lost']} lost, {run['wrong']} wrong; {run['rss_mb']['after_half']:.0f} MB after half of them, "
        f"{run['rss_mb']['after_all']:.0f} MB after all |",
    ]


def parity(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    rows = [row for row in record["rows"] if row["limit"] > 0]
    worst = max(rows, key=lambda row: row["max_abs"] / row["limit"])
    return [
        f"| the original modules' numbers, {len(record['rows'])} arrays on "
        f"{' and '.join(sorted({row['backend'] for row in rows}))}: the one nearest to its tolerance | any | "
        f"{worst['file']} {worst['key']}: off by {worst['max_abs']:.1e} of {worst['limit']:.0e} allowed |"
    ]


def evaluation(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    made, own, picked = record["generated"], record["own_sound"], record["picked_onset_f1"]
    others, on = record["other_clips"], f"{record['clips']} held-out procedural clips"
    rows = [
        f"| onset F1 at ±{key} ms of the generated sound, {on} | any | {made['onset_f1'][key]:.2f} "
        f"(chance {made['onset_f1_chance'][key]:.2f}; the clips' own sound {own['onset_f1'][key]:.2f}; "
        f"onset network alone {picked[key]:.2f}) |"
        for key in ("100", "50")
    ]
    return [
        *rows,
        f"| kind of thing heard right, of 14, {on} | any | {made['class_accuracy']:.0%} "
        f"(the clips' own sound {own['class_accuracy']:.0%}) |",
        f"| FD, FAD to the clips' own sound, {on} | any | {made['fd']:.2f}, {made['fad']:.2f} "
        f"(other clips' own sounds {others['fd']:.2f}, {others['fad']:.2f}) |",
        f"| sound taken for the picture's by the sync judge, {on} | any | {made['sync_accuracy']:.0%} "
        f"(with other clips' pictures {made['sync_chance']:.0%}; the clips' own sound "
        f"{own['sync_accuracy']:.0%}) |",
        *delivered(record["delivered"], on),
    ]


def edits(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    shares = record["shares"]
    by_sort = ", ".join(f"{sort} {row['followed']:.0%}" for sort, row in shares.items() if sort != "all")
    return [
        f"| an onset moved, added or removed by hand: the sound follows within ±50 ms, "
        f"{shares['all']['edits']} edits | any | {shares['all']['followed']:.0%} ({by_sort}; before the edit "
        f"{shares['all']['before_the_edit']:.0%}) |"
    ]


def delivered(record: dict[str, Any], on: str) -> list[str]:
    lufs, gaps = record["lufs"], record["events_over_silence_db"]
    return [
        f"| loudness of the delivered sound (asked: -23 LUFS), {on} | any | {lufs['lowest']:.1f} to "
        f"{lufs['highest']:.1f} LUFS, median {lufs['median']:.1f}; {lufs['off_by_more_than_4']} off by more "
        f"than 4 LU, {record['silent']} silent |",
        f"| events over a silence of a second or more, {gaps['of']} clips that have one | any | median "
        f"{gaps['median']:.0f} dB, least {gaps['worst']:.0f} dB, {gaps['below_20_db']} below 20 dB |",
    ]


def ablation() -> str:
    """The README's table of the paper's ideas on and off: mean over seeds, and largest less smallest."""
    lines = []
    for path in sorted(RESULTS.glob("*/ablation.json")):
        record = json.loads(path.read_text("utf-8"))
        lines += [
            f"| {record['steps']} steps, {len(record['seeds'])} seeds, {record['test_clips']} held-out "
            f"clips | {' | '.join(name for name, _ in ABLATION_COLUMNS.values())} |",
            "|---" * (len(ABLATION_COLUMNS) + 1) + "|",
        ]
        for variant, row in record["variants"].items():
            cells = [
                f"{form.format(row[key]['mean'])} ({form.format(row[key]['spread'])})"
                for key, (_, form) in ABLATION_COLUMNS.items()
            ]
            lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def reconstruction(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    both = record["vae_and_vocoder"]
    return [
        f"| {record['clips']} held-out sounds through VAE and vocoder: spectral convergence, log-mel error, "
        f"kind still heard right, FD, FAD | any | {both['spectral_convergence']:.2f} "
        f"({both['spectral_snr_db']:.0f} dB), {both['log_mel_error_db']:.1f} dB, "
        f"{both['class_accuracy']:.0%}, {both['fd']:.2f}, {both['fad']:.2f} |"
    ]


def speed() -> str:
    """The README's block on speed, from every device that has records of `taro-rt bench`."""
    parts = []
    for path in sorted(RESULTS.glob("*/bench*.json")):
        record = read(path) or {}
        costs = read(path.with_name("fast.json"))
        lost, n_clips = settings_of(costs), costs["clips"] if costs else 0
        picture = f"docs/{path.stem}-{path.parent.name}.svg"
        parts += [
            heading(record),
            exact_table(record["exact"]),
            stage_table(record["exact"]),
            f"![Seconds by stage, and the ratio to the released recipe]({picture})",
            *([takes_line(record["takes"])] if record["takes"] else []),
            *([fast_table(record["fast"], lost, n_clips)] if record["fast"] else []),
        ]
    return "\n\n".join([*parts, quoted()])


def settings_of(record: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What fast settings cost, if the record is one of the embedded bundle as it is now."""
    manifest = json.loads((ROOT / "engines/default/manifest.json").read_text("utf-8"))
    now = manifest["files"]["transformer.safetensors"]["sha256"]
    return record["settings"] if record and record["transformer_sha256"] == now else {}


def heading(record: dict[str, Any]) -> str:
    device, work, roofline = record["device"], record["workload"], record["roofline"]
    rates = " and ".join(f"{rate:.0f} in {name}" for name, rate in roofline["gemm_gflops"].items())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"**Bundle {work['bundle']}** ({work['parameters_mb']} MB), {work['seconds']:g} s of "
        f"{work['height']}-line video to a file with sound, {work['sampler']['steps']} steps, "
        f"guidance {work['sampler']['guidance']:g}, takes at once: {work['takes']}, "
        f"{work['threads']} threads of {device['cores']} cores {device['processor']} "
        f"({device['vectors']}). Products of large matrices reach {rates} GFLOP/s here, copying "
        f"{roofline['copy_gb_s']:.0f} GB/s. {versions}."
    )


def exact_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| exact: the same mathematics | ratio | s, p50 | p90 | p99 | runs | from process start, s "
        "| load, s (empty cache) | peak MB | of the roofline | off float32, relative rms |",
        "|---" * 11 + "|",
    ]
    for row in rows:
        if not row["timed"]:
            lines.append(f"| {row['name']} | not timed: {row['why_not']} |" + " |" * 9)
            continue
        wall = row["wall_s"]
        share = f"{row['of_roofline']:.0%}" if "of_roofline" in row else ""
        off = f"{row['deviation']['trajectory']:.2%}" if "deviation" in row else ""
        lines.append(
            f"| {row['name']} | {ratio(row)} "
            f"| {wall['p50']:.2f} | {wall['p90']:.2f} | {wall['p99']:.2f} | {row['runs']} "
            f"| {row['cold_s']:.1f} | {row['load_s']:.2f} ({row['load_empty_cache_s']:.1f}) "
            f"| {row['peak_mb']:.0f} | {share} | {off} |"
        )
    return "\n".join(lines)


def ratio(row: dict[str, Any]) -> str:
    """To row one; nothing where that was not timed."""
    return f"{row['ratio']:.2f}" if "ratio" in row else ""


def takes_line(takes: dict[str, Any]) -> str:
    return (
        f"{takes['takes']} takes at once ({takes['name']}): {takes['wall_s']['p50']:.2f} s, "
        f"{takes['ratio']:.2f} times one."
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


def read(path: Path) -> dict[str, Any] | None:
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else None


def with_figures(text: str) -> str:
    """`text` of the README with its blocks of figures made anew."""
    blocks = ((FIGURES, figures()), (ABLATION, ablation()), (SPEED, speed()))
    for (begin, end), block in blocks:
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_figures(readme.read_text("utf-8")), "utf-8")
