"""Long runs of a network are broken off in the middle, by Ctrl-C and by a caller's progress."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from media import encode, numbered
from onnx import TensorProto, helper

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Contract, TensorSpec
from taro_rt.engines.errors import Cancelled, EngineError
from taro_rt.engines.ort import OrtEngine
from taro_rt.engines.watch import Watch
from taro_rt.runtime.interrupts import Interrupts
from taro_rt.runtime.pipeline import Pipeline

SIDE = 256
AT_ONCE_S = 1.0


def slow_model(path: Path, inputs: TensorSpec, outputs: TensorSpec, rounds: int) -> Path:
    """Gives zeros of the outputs' shape after `rounds` products of matrices, half a millisecond each."""
    matrix = helper.make_tensor_value_info("x", TensorProto.FLOAT, [SIDE, SIDE])
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "zeros"], ["y"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("k", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            matrix,
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [SIDE, SIDE]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", [inputs.name], ["sum"], keepdims=0),
            helper.make_node("Mul", ["zeros", "sum"], ["first"]),  # else it would be folded while loading
            helper.make_node("Loop", ["rounds", "", "first"], ["last"], body=body),
            helper.make_node("ReduceSum", ["last"], ["zero"], keepdims=0),
            helper.make_node("Expand", ["zero", "shape"], [outputs.name]),
        ],
        "slow",
        [helper.make_tensor_value_info(inputs.name, TensorProto.FLOAT, inputs.shape)],
        [helper.make_tensor_value_info(outputs.name, TensorProto.FLOAT, outputs.shape)],
        [
            helper.make_tensor("rounds", TensorProto.INT64, [], [rounds]),
            helper.make_tensor("shape", TensorProto.INT64, [len(outputs.shape)], outputs.shape),
            helper.make_tensor("zeros", TensorProto.FLOAT, [SIDE, SIDE], bytes(4 * SIDE * SIDE), raw=True),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def slow_engine(folder: Path, contract: Contract, watch: Watch, rounds: int = 100_000) -> OrtEngine:
    path = slow_model(folder / "slow.onnx", contract.inputs[0], contract.outputs[0], rounds)
    return OrtEngine(path, contract, threads=1, watch=watch)


@pytest.fixture
def contract() -> Contract:
    return Contract("slow", (TensorSpec("a", (2,)),), (TensorSpec("b", (3,)),))


@contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """Ctrl-C from outside, as a terminal sends it."""
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    yield
    timer.join()


def test_ctrl_c_ends_a_run_of_many_seconds_at_once(tmp_path: Path, contract: Contract) -> None:
    engine = slow_engine(tmp_path, contract, Watch())
    with Interrupts(), interrupt_after(0.3):
        started = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            engine(a=np.ones(2, np.float32))
        assert time.perf_counter() - started < 0.3 + AT_ONCE_S


def test_an_exception_of_the_one_who_watches_ends_the_run(tmp_path: Path, contract: Contract) -> None:
    watch = Watch()
    engine, asked = slow_engine(tmp_path, contract, watch), []

    def ask() -> None:
        asked.append(threading.current_thread())
        if len(asked) == 2:
            raise Cancelled("enough")

    started = time.perf_counter()
    with watch.asking(ask), pytest.raises(Cancelled, match="enough"):
        engine(a=np.ones(2, np.float32))
    assert time.perf_counter() - started < AT_ONCE_S
    assert asked == [threading.main_thread()] * 2


def test_an_engine_works_on_after_a_run_that_was_broken_off(tmp_path: Path, contract: Contract) -> None:
    watch, calls = Watch(), iter([True, False])
    engine = slow_engine(tmp_path, contract, watch, rounds=3000)

    def ask() -> None:
        if next(calls, False):
            raise Cancelled("enough")

    with watch.asking(ask), pytest.raises(Cancelled):
        engine(a=np.ones(2, np.float32))
    assert engine(a=np.ones(2, np.float32))["b"].tolist() == [0, 0, 0]


def test_what_the_work_itself_raises_is_raised(tmp_path: Path) -> None:
    def broken() -> None:
        raise EngineError("broken")

    with pytest.raises(EngineError, match="broken"):
        Watch().run(broken, lambda: pytest.fail("there is nothing to stop"))


@pytest.mark.parametrize("work", ["generate", "onsets"])
def test_a_progress_that_says_no_ends_a_long_step_of_the_pipeline(
    tmp_path: Path, tiny_bundle: Path, work: str
) -> None:
    bundle = Bundle.open(tiny_bundle)
    video = encode(tmp_path / "a.mp4", numbered(30, 64, 48))
    with Pipeline.load(bundle, threads=1) as pipeline:
        contract = bundle.contracts()["onset"]
        inputs = replace(contract.inputs[0], shape=(1, *contract.inputs[0].shape[1:]))
        outputs = replace(contract.outputs[0], shape=(1, *contract.outputs[0].shape[1:]))
        fixed = replace(contract, inputs=(inputs,), outputs=(outputs,))
        slow = slow_engine(tmp_path, fixed, pipeline.engines.watch)
        pipeline = Pipeline(bundle, replace(pipeline.engines, onset=slow))
        started = time.perf_counter()
        with pytest.raises(Cancelled):
            getattr(pipeline, work)(video, progress=lambda *_: time.perf_counter() - started < 0.5)
        assert time.perf_counter() - started < 0.5 + AT_ONCE_S


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of Python 3.12, about any thread
def test_a_watch_works_in_a_forked_process() -> None:
    watch = Watch()
    assert watch.run(lambda: 1, lambda: None) == 1
    child = os.fork()
    if child == 0:
        os._exit(watch.run(lambda: 7, lambda: None))
    stop = time.perf_counter() + 10
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.perf_counter() < stop:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended[1]) == 7, "it waited for a thread that it does not have"


def test_who_closes_the_watch_and_says_no_is_heard(tmp_path: Path, contract: Contract) -> None:
    watch = Watch()
    engine = slow_engine(tmp_path, contract, watch)

    def ask() -> None:
        watch.close()
        raise Cancelled("enough")

    with watch.asking(ask), pytest.raises(Cancelled, match="enough"):
        engine(a=np.ones(2, np.float32))


def test_a_run_that_does_not_hear_the_first_request_to_stop_is_asked_again() -> None:
    watch, heard, over = Watch(), [], threading.Event()

    def stop() -> None:
        heard.append(1)
        if len(heard) == 3:
            over.set()

    def ask() -> None:
        raise Cancelled("enough")

    with watch.asking(ask), pytest.raises(Cancelled, match="enough"):
        watch.run(lambda: over.wait(30), stop)
    assert len(heard) == 3
