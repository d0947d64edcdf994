"""Contracts of fixed sizes, for runtimes that compile a graph for one shape: TensorRT's plans and files.

The denoiser's goes on to the end of the sampler's step, so that a whole sampler is a chain of such calls.
"""

from __future__ import annotations

from taro_rt.engines.contract import Contract, TensorSpec
from taro_rt.engines.stages import Geometry, contracts

BATCHES = (1, 2)
"""One row, or two: the conditional and the null one of a guided step, or two independent ones."""
PLANNED = {
    "onset": (1,),
    "visual": (1,),
    "conditioner": (1,),
    "denoiser": BATCHES,
    "decoder": (1,),
    "vocoder": (1,),
}
"""The batches that a plan is built for, by graph: the pipeline gives only the denoiser more than one row."""


def static_contracts(geometry: Geometry, steps: int, batch: int) -> dict[str, Contract]:
    """The six contracts at batch `batch`, at `steps` times and for a whole window of context tokens.

    What stays free is `t`, the frames of a visual network that looks ahead. Tensors stay float32 whatever
    lies between them.

    The denoiser [r rows] takes, besides, `noise` like its latents, `update` [3] = (keep, push, spread) and
    `mix` [r, r]. It returns `latents_out` = keep latents + push (mix velocity) + spread noise: with `mix` the
    identity and (0, 1, 0) every row's velocity, with rows (g, 1 - g) the guided step of scale g (spec B5).
    """
    sizes = {"b": batch, "s": steps, "n": geometry.visual_frames}
    made = {name: _fixed(contract, sizes) for name, contract in contracts(geometry).items()}
    plain = made["denoiser"]
    latents = plain.inputs[0]
    more = (
        TensorSpec("noise", latents.shape),
        TensorSpec("update", (3,)),
        TensorSpec("mix", (batch, batch)),
    )
    result = TensorSpec("latents_out", latents.shape)
    made["denoiser"] = Contract("denoiser", (*plain.inputs, *more), (result,))
    return made


def _fixed(contract: Contract, sizes: dict[str, int]) -> Contract:
    inputs, outputs = (
        tuple(TensorSpec(s.name, tuple(sizes.get(str(n), n) for n in s.shape)) for s in side)
        for side in (contract.inputs, contract.outputs)
    )
    return Contract(contract.graph, inputs, outputs)
