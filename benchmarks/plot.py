"""Draws committed records as SVG, without a plotting library: docs/*.svg.

python benchmarks/plot.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import speed_tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
FONT = 'font-family="sans-serif" font-size="12"'
ROW, LABEL, PLOT, GAP = 20, 130, 190, 24
"""Pixels: height of a row, width of the names, of one panel's bars, and between panels."""


@dataclass(frozen=True)
class Bar:
    """A value, and how far its repetitions lie apart."""

    label: str
    mean: float
    spread: float = 0.0


def panels(title: str, columns: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Horizontal bars, one panel a figure, all with the same rows. A whisker as long as the spread."""
    n_rows = len(columns[0][1])
    width, height = LABEL + len(columns) * (PLOT + GAP), (n_rows + 3) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {FONT}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="4" y="15" font-weight="bold">{escape(title)}</text>',
    ]
    parts += [text(4, row_y(i), bar.label) for i, bar in enumerate(columns[0][1])]
    for k, (name, bars) in enumerate(columns):
        parts += panel(LABEL + k * (PLOT + GAP), name, bars)
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(x: float, name: str, bars: Sequence[Bar]) -> list[str]:
    """One figure's bars from `x` on."""
    longest = max(bar.mean + bar.spread / 2 for bar in bars) or 1.0
    scale = (PLOT - 44) / longest
    parts = [text(x, 2 * ROW - 8, name, bold=True)]
    for i, bar in enumerate(bars):
        y, end = row_y(i), x + bar.mean * scale
        parts.append(
            f'<rect x="{x}" y="{y - 11}" width="{end - x:.1f}" height="13" fill="#4a7fb0"/>'
            f'<line x1="{end - bar.spread / 2 * scale:.1f}" x2="{end + bar.spread / 2 * scale:.1f}" '
            f'y1="{y - 4.5}" y2="{y - 4.5}" stroke="black" stroke-width="1.5"/>'
        )
        parts.append(text(x + PLOT - 40, y, f"{bar.mean:.3g}"))
    return parts


def row_y(i: int) -> float:
    """Base line of row `i`."""
    return (i + 3) * ROW - 6


def text(x: float, y: float, content: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{weight}>{escape(content)}</text>'


ABLATION = {
    "onset_f1_100": "onset F1, ±100 ms",
    "class_accuracy": "class accuracy",
    "fd": "FD (teacher)",
    "fad": "FAD (judge)",
    "sync_accuracy": "sync accuracy",
}


def ablation(record: dict[str, Any]) -> str:
    """The paper's ablations at small scale: a row a variant, a panel a figure."""
    columns = [
        (
            name,
            [Bar(v, row[key]["mean"], row[key]["spread"]) for v, row in record["variants"].items()],
        )
        for key, name in ABLATION.items()
    ]
    seeds = len(record["seeds"])
    return panels(f"{record['steps']} steps, mean of {seeds} seeds; line: largest less smallest", columns)


COLOURS = {
    "read": "#9a9a9a",
    "onset": "#c46a4a",
    "visual": "#d9a441",
    "conditioner": "#7d6b9e",
    "denoiser": "#4a7fb0",
    "decoder": "#5d9b6b",
    "vocoder": "#2f5d50",
    "write": "#cccccc",
    "other": "#e6e6e6",
}


def latency(record: dict[str, Any]) -> str:
    """Stacked seconds by stage of every exact variant, and its ratio to the first. The upper rows leave out
    one surplus part of the released recipe after the other; below them is every backend."""
    rows = [row for row in record["exact"] if row["timed"]]
    label, plot, x_ratio = 170, 430, 620
    width, height = x_ratio + PLOT, (len(rows) + 4) * ROW
    longest = max(sum(s["p50"] for s in row["stages"].values()) for row in rows) or 1.0
    fastest = max(row.get("ratio", 1.0) for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {FONT}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        text(4, 15, f"{record['workload']['bundle']}: seconds by stage (p50), warm", bold=True),
        text(x_ratio, 15, "times as fast as the first row", bold=True),
        *legend(label),
    ]
    for i, row in enumerate(rows):
        x, y = float(label), row_y(i + 1)
        parts.append(text(4, y, row["name"]))
        for stage, colour in COLOURS.items():
            wide = row["stages"][stage]["p50"] / longest * plot
            parts.append(f'<rect x="{x:.1f}" y="{y - 11}" width="{wide:.1f}" height="13" fill="{colour}"/>')
            x += wide
        ratio = row.get("ratio", 0.0)
        wide = ratio / fastest * (PLOT - 50)
        parts.append(
            f'<rect x="{x_ratio}" y="{y - 11}" width="{wide:.1f}" height="13" fill="{COLOURS["denoiser"]}"/>'
        )
        parts.append(text(x_ratio + wide + 4, y, f"{ratio:.2f}"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def legend(x: float) -> list[str]:
    """A square and a name for every stage."""
    parts = []
    for stage, colour in COLOURS.items():
        parts.append(f'<rect x="{x}" y="{2 * ROW - 13}" width="10" height="10" fill="{colour}"/>')
        parts.append(text(x + 13, 2 * ROW - 4, stage))
        x += 30 + 6.5 * len(stage)
    return parts


def curves(record: dict[str, list[dict[str, float]]]) -> str:
    """The loss of every training over its steps, each in a panel of its own, from least to largest."""
    side = 150
    width, height = len(record) * (side + GAP) + GAP, side + 3 * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {FONT}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for k, (name, rows) in enumerate(record.items()):
        x, losses = GAP + k * (side + GAP), [row["loss"] for row in rows]
        low, high, last = min(losses), max(losses), rows[-1]["step"]
        points = " ".join(
            f"{x + side * row['step'] / last:.1f},"
            f"{2 * ROW + side * (high - row['loss']) / max(high - low, 1e-9):.1f}"
            for row in rows
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="#4a7fb0" stroke-width="1.5"/>')
        parts.append(text(x, ROW, name, bold=True))
        parts.append(text(x, 2 * ROW + side + 14, f"{high:.3g} to {low:.3g}, {last:.0f} steps"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    DOCS.mkdir(exist_ok=True)
    for path in sorted(RESULTS.glob("*/training.json")):
        drawn = curves(json.loads(path.read_text("utf-8")))
        (DOCS / f"training-{path.parent.name}.svg").write_text(drawn, "utf-8")
    for path in speed_tables.records(RESULTS):
        drawn = latency(json.loads(path.read_text("utf-8")))
        (DOCS / f"{path.stem}-{path.parent.name}.svg").write_text(drawn, "utf-8")
    for path in sorted(RESULTS.glob("*/ablation.json")):
        drawn = ablation(json.loads(path.read_text("utf-8")))
        (DOCS / f"ablation-{path.parent.name}.svg").write_text(drawn, "utf-8")


if __name__ == "__main__":
    main()
