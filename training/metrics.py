"""The figures of the paper's tables, on small data: pure functions of arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from taro_rt.engines.contract import Array
from taro_rt.training.mel import HOP
from taro_rt.training.sounds import RATE_HZ, Floats

CLOSE_S = 0.08
"""Events nearer than this are heard as one."""


def mel_onsets(mel: Array) -> Array:
    """Times (s) at which the energy of a log-mel [n, bins] rises: frames whose half-wave rectified flux,
    averaged over bands, reaches a quarter of the clip's strongest."""
    mel = np.maximum(mel, mel.max() - 7.0)  # nothing 60 dB below the loudest counts
    lag = 3
    flux = np.maximum(mel[lag:] - mel[:-lag], 0).mean(1)
    threshold = max(0.35, 0.25 * float(np.percentile(flux, 98)))
    times: list[float] = []
    for k in np.argsort(-flux):
        if flux[k] < threshold:
            break
        time_s = (k + lag - 1) * HOP / RATE_HZ
        if all(abs(time_s - other) >= CLOSE_S for other in times):
            times.append(time_s)
    return np.sort(np.array(times))


def f1(found: Array, true: Array, tolerance_s: float) -> float:
    """F1 of one-to-one matches within the tolerance; true events too close to be told apart count as one."""
    merged: list[float] = []
    for time_s in np.sort(true):
        if not merged or time_s - merged[-1] >= CLOSE_S:
            merged.append(float(time_s))
    if not merged or not len(found):
        return float(len(merged) == len(found))
    pairs = sorted(
        (abs(a - b), i, j)
        for i, a in enumerate(found)
        for j, b in enumerate(merged)
        if abs(a - b) <= tolerance_s
    )
    left: set[int] = set()
    right: set[int] = set()
    for _, i, j in pairs:
        if i not in left and j not in right:
            left.add(i)
            right.add(j)
    return 2 * len(left) / (len(found) + len(merged))


def frechet(a: Floats, b: Floats) -> float:
    """Fréchet distance of Gaussians fitted to embeddings a [n, d] and b [m, d]."""
    mean = np.square(a.mean(0) - b.mean(0)).sum()
    cov_a, cov_b = (np.cov(x.astype(np.float64), rowvar=False) for x in (a, b))
    # tr sqrt(A B) is the sum of square roots of the eigenvalues of sqrt(A) B sqrt(A)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(mean + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def inception_score(probabilities: Floats) -> float:
    """exp of the mean divergence of each clip's class probabilities [n, classes] from their mean."""
    p = np.maximum(probabilities, 1e-9)
    return float(np.exp((p * np.log(p / p.mean(0))).sum(1).mean()))


def divergence(real: Floats, generated: Floats) -> float:
    """Mean over clips of KL(real || generated) of class probabilities, each [n, classes]."""
    p, q = np.maximum(real, 1e-6), np.maximum(generated, 1e-6)
    return float((p * np.log(p / q)).sum(1).mean())


def accuracy(probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Share of rows whose likeliest class is the label."""
    return float((probabilities.argmax(1) == labels).mean())


def longest_silence(events_s: Array, duration_s: float, quiet_s: float = 1.0) -> tuple[float, float] | None:
    """From when to when nothing happens for the longest time, if that is `quiet_s` or more; else None."""
    edges = np.concatenate([[0.0], np.sort(events_s), [duration_s]])
    k = int(np.argmax(np.diff(edges)))
    start_s, end_s = float(edges[k]), float(edges[k + 1])
    return (start_s, end_s) if end_s - start_s >= quiet_s and len(events_s) else None


def loudness_gap_db(samples: Array, events_s: Array, before_s: float = 0.1) -> float | None:
    """Level of the events above that of the clip's longest silence, where there is one; else None.

    Both are rms: of the 100 ms after each event, and of the last quarter of the silence, when it has come, up
    to `before_s` before its end.
    """
    silence = longest_silence(events_s, len(samples) / RATE_HZ)
    if silence is None:
        return None
    start_s, end_s = silence
    quiet = samples[int((start_s + 0.75 * (end_s - start_s)) * RATE_HZ) : int((end_s - before_s) * RATE_HZ)]
    loud = [samples[int(t * RATE_HZ) : int((t + 0.1) * RATE_HZ)] for t in events_s]
    if len(quiet) < RATE_HZ // 50:
        return None
    return float(20 * np.log10(_rms(np.concatenate(loud)) / max(_rms(quiet), 1e-7)))


def _rms(samples: Array) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
