"""Does the sound follow an edited onset? One onset of a clip moved, added or removed, and listened to.

Held-out procedural clips of things that strike. An edit is followed if the sound generated with it rises
within 50 ms of where it should (moved, added) and no longer where it did (moved, removed), unless another
given onset is there. The same question put to the sound before the edit says what chance gives. Writes
benchmarks/results/<device>/edits.json; takes about five minutes. Run it as a file.

    python benchmarks/edits.py [--edits 50] [--bundle default]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from taro_rt.engines.contract import Array
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.onsets import Onset
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.training.clips import HELD_OUT, write_video
from taro_rt.training.data import CLIP_S
from taro_rt.training.evaluate import FIRST_TEST_ROW
from taro_rt.training.metrics import mel_onsets
from taro_rt.training.scenes import KINDS
from taro_rt.training.scores import mel_of

# the Makefile runs Python without the script's folder; at the end, as tests have a media.py too
sys.path.append(str(Path(__file__).parent))
from first_use import RESULTS, about

Sort = Literal["moved", "added", "removed"]
SORTS: tuple[Sort, ...] = ("moved", "added", "removed")
TOLERANCE_S = 0.05
MOVE_S = (0.15, 0.5)
"""How far an onset is moved, either way: far enough to tell the new place from the old one."""
APART_S = 0.15
"""Least distance of a new place from every given onset, and of an edited onset from the others: nearer ones
cannot be told apart by ear or metric."""
ENDS_S = 0.2
"""Nothing is put nearer than this to the clip's ends."""
TRIES = 50


@dataclass(frozen=True)
class Edit:
    """One change to the onsets of a clip."""

    sort: Sort
    onsets: tuple[Onset, ...]
    """All of them, after it."""
    old_s: float | None
    """Where nothing should be heard any more."""
    new_s: float | None
    """Where something should be heard now."""


def edit(sort: Sort, onsets: Sequence[Onset], rng: np.random.Generator, duration_s: float) -> Edit | None:
    """A random edit of that sort; None where the clip leaves no room for one."""
    times = np.array([onset.time_s for onset in onsets])
    alone = [k for k, t in enumerate(times) if np.abs(np.delete(times, k) - t).min(initial=9) >= APART_S]
    if sort != "added" and not alone:
        return None
    if sort == "removed":
        k = int(rng.choice(alone))
        kept = tuple(o for i, o in enumerate(onsets) if i != k)
        return Edit(sort, kept, float(times[k]), None)
    for _ in range(TRIES):
        if sort == "moved":
            k = int(rng.choice(alone))
            new_s = float(times[k] + rng.choice([-1, 1]) * rng.uniform(*MOVE_S))
            kept, old_s = [o for i, o in enumerate(onsets) if i != k], float(times[k])
            moved = Onset(max(0.0, new_s), onsets[k].strength)
        else:
            kept, old_s, moved = list(onsets), None, Onset(float(rng.uniform(0, duration_s)))
        is_free = all(abs(moved.time_s - other.time_s) >= APART_S for other in kept)
        if is_free and ENDS_S <= moved.time_s <= duration_s - ENDS_S:
            return Edit(sort, tuple(sorted([*kept, moved], key=lambda o: o.time_s)), old_s, moved.time_s)
    return None


def is_followed(made: Edit, heard_s: Array) -> bool:
    """Whether a sound that rises at `heard_s` is that of the edited onsets, at the place of the edit."""

    def hears(time_s: float) -> bool:
        return bool((np.abs(heard_s - time_s) <= TOLERANCE_S).any())

    if made.new_s is not None and not hears(made.new_s):
        return False
    if made.old_s is None or any(abs(o.time_s - made.old_s) <= TOLERANCE_S for o in made.onsets):
        return True
    return not hears(made.old_s)


def heard(
    pipeline: Pipeline, clip: Clip, onsets: tuple[Onset, ...] | None
) -> tuple[Array, tuple[Onset, ...]]:
    """When the generated sound rises, and the onsets it was made for: the network's for None."""
    result = pipeline.generate(clip, Options(onsets=onsets))
    return mel_onsets(mel_of(result.audio.samples)), result.onsets


def trials(pipeline: Pipeline, n: int, first_row: int = FIRST_TEST_ROW) -> Iterator[dict[str, Any]]:
    """`n` edits, each on another clip, the sorts in turn; rows without an onset to edit are passed over."""
    row, n_done = first_row, 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        while n_done < n:
            seed, sort = HELD_OUT + row, SORTS[n_done % len(SORTS)]
            scene = write_video(path, seed, CLIP_S, height=180, kind=KINDS[seed % len(KINDS)])
            row += 1
            if not scene.events:
                continue
            clip = Clip.read(path, pipeline.geometry)
            before_s, onsets = heard(pipeline, clip, None)
            made = edit(sort, onsets, np.random.default_rng(seed), clip.duration_s)
            if made is None:
                continue
            after_s, _ = heard(pipeline, clip, made.onsets)
            n_done += 1
            yield {
                "row": row - 1,
                "kind": scene.kind,
                "sort": sort,
                "old_s": made.old_s,
                "new_s": made.new_s,
                "followed": is_followed(made, after_s),
                "before": is_followed(made, before_s),
            }


def shares(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Share of followed edits, of all and by sort, beside that of the sounds before the edit."""

    def share(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "edits": len(rows),
            "followed": float(np.mean([row["followed"] for row in rows])),
            "before_the_edit": float(np.mean([row["before"] for row in rows])),
        }

    by_sort = {sort: [row for row in found if row["sort"] == sort] for sort in SORTS}
    return {"all": share(found), **{sort: share(rows) for sort, rows in by_sort.items() if rows}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--first-row", type=int, default=FIRST_TEST_ROW)
    parser.add_argument("--device", default=f"cpu-{os.cpu_count()}-cores", help="folder name under results/")
    parser.add_argument("--output", type=Path, help="write the record here instead")
    args = parser.parse_args()
    found: list[dict[str, Any]] = []
    with Pipeline.load(args.bundle) as pipeline:
        head = about(pipeline.bundle)
        for row in trials(pipeline, args.edits, args.first_row):
            found.append(row)
            print(f"{len(found)}/{args.edits} {row}", file=sys.stderr, flush=True)
    record = {
        **head,
        "first_row": args.first_row,
        "tolerance_s": TOLERANCE_S,
        "shares": shares(found),
        "edits": found,
    }
    text = json.dumps(record, indent=1)
    target = args.output or RESULTS / args.device / "edits.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text + "\n")
    print(json.dumps(record["shares"], indent=1))


if __name__ == "__main__":
    main()
