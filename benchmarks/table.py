"""Writes the figures of README.md and docs/speed.md from the committed records: none is typed by hand.

python benchmarks/table.py           rewrite both
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import speed_tables

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


def figures() -> str:
    """The README's block of figures, from every device that has records."""
    lines = [
        "| measured | on | value |",
        "|---|---|---|",
    ]
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        lines += first_use(read(folder / "first_use.json")) + evaluation(read(folder / "evaluation.json"))
        lines += edits(read(folder / "edits.json")) + reconstruction(read(folder / "reconstruction.json"))
        lines += published(read(folder / "published.json")) + overlap(read(folder / "overlap.json"))
        lines += parity(read(folder / "parity.json"))
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
    on = f"{machine['cores']} cores, {machine['processor']}, {machine['vectors']}"
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


def overlap(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    machine, share = record["machine"], record["both_of_one_after_the_other"]
    on = f"{machine['cores']} cores, {machine['processor']}, {machine['vectors']}"
    low, high = share["from_to"]
    return [
        f"| reading beside the networks that watch, of the time one after the other ({record['workload']}, "
        f"{record['rounds']} rounds) | {on} | {share['median']:.2f} ({low:.2f} to {high:.2f}) |"
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
        f"{gaps['median']:.0f} dB, least {gaps['worst']:.0f} dB, {gaps['below_20_db']} below 20 dB, "
        f"of these {gaps['of_these_in_the_own_sound_too']} in the clip's own sound, too, and in "
        f"{gaps['of_these_with_an_onset_picked']} an onset was picked there, in "
        f"{gaps['of_these_with_the_next_event_early']} the next event comes up to 0.25 s early; "
        f"of the own sounds {gaps['in_the_own_sound']} |",
    ]


def ablation() -> str:
    """The README's tables of the paper's ideas on and off: mean over seeds, and largest less smallest."""
    tables = []
    records = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*/ablation*.json"))]
    for record in sorted(records, key=lambda record: int(record["steps"])):
        lines = [
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
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


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


def read(path: Path) -> dict[str, Any] | None:
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else None


def with_figures(text: str, blocks: Iterable[tuple[tuple[str, str], str]]) -> str:
    """`text` of a page with its blocks of figures made anew."""
    for (begin, end), block in blocks:
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"
    return text


def pages() -> dict[Path, str]:
    """Every page that holds figures, as it must be."""
    on_each = {
        ROOT / "README.md": (
            (FIGURES, figures()), (ABLATION, ablation()), (SPEED, speed_tables.summary(RESULTS))
        ),
        ROOT / "docs" / "speed.md": ((SPEED, speed_tables.tables(RESULTS)),),
    }  # fmt: skip
    return {path: with_figures(path.read_text("utf-8"), blocks) for path, blocks in on_each.items()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")
