"""A bounded queue, one thread that works it off, and what ended jobs leave behind for a while."""

from __future__ import annotations

import math
import shutil
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from taro_rt.engines.errors import Cancelled, TaroError
from taro_rt.runtime.commands import Machine, Record
from taro_rt.runtime.service.asks import Ask
from taro_rt.runtime.service.documents import State
from taro_rt.runtime.service.kept import Shelf, Video
from taro_rt.runtime.service.refusals import Refusal, fault
from taro_rt.runtime.service.settings import Settings
from taro_rt.runtime.service.task import ENDED, Task

TIDY_S = 30
"""How often what is too old is looked for while nothing happens."""
TELL_S = 0.1
"""Between two words of progress within a stage: each costs the work a little."""
STOPPED = "stopped: the caller asked for it, no unfinished output is left"


class Jobs:
    """Accepts, runs one at a time, remembers. Every method may be called from any thread."""

    def __init__(self, machine: Machine, settings: Settings, shelf: Shelf) -> None:
        self._machine, self._settings, self._shelf = machine, settings, shelf
        self._changed = threading.Condition(threading.RLock())
        self._queue: deque[Task] = deque()
        self._tasks: dict[str, Task] = {}
        self._places, self._stopping = 0, False
        self._seconds: deque[float] = deque([1.0], maxlen=10)
        self._thread = threading.Thread(target=self._work, name="taro-rt-jobs", daemon=True)
        self._thread.start()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Keeps a place in the queue while a request is read. Raises `Refusal` if there is none."""
        with self._changed:
            if self._stopping:
                raise Refusal(503, "the service is stopping; start it again")
            waiting = len(self._queue) + self._places
            if waiting >= self._settings.max_waiting:
                again_s = max(1, math.ceil(waiting * sum(self._seconds) / len(self._seconds)))
                raise Refusal(
                    429,
                    f"expected at most {self._settings.max_waiting} jobs that wait, got one more; "
                    f"come again in {again_s} s",
                    min(again_s, 600),
                )
            self._places += 1
        try:
            yield
        finally:
            with self._changed:
                self._places -= 1

    def submit(self, ask: Ask, video: Video) -> Task:
        """Queue a job; call it within `place`."""
        task = Task(ask, video, self._shelf.new_folder())
        with self._changed:
            self._tasks[task.id] = task
            if self._stopping:
                self._end(task, "cancelled", error=fault(Cancelled(STOPPED)))
            else:
                self._queue.append(task)
            self._changed.notify_all()
        return task

    def find(self, name: str) -> Task:
        """Raises `Refusal` if there is none."""
        with self._changed:
            if task := self._tasks.get(name):
                return task
        raise Refusal(404, f"{name[:80]}: no such job; old ones are dropped")

    def record(self, task: Task) -> Record:
        """The state of a job in plain containers: `JobRecord`."""
        with self._changed:
            return {
                "job": task.id,
                "kind": task.ask.kind,
                "video": task.video.name,
                "state": task.state,
                "position": self._queue.index(task) if task in self._queue else None,
                "stage": task.stage,
                "progress": task.progress,
                "result": task.result,
                "error": task.error,
            }

    def counts(self) -> tuple[int, int]:
        """Jobs that run, and that wait."""
        with self._changed:
            return sum(task.state == "running" for task in self._tasks.values()), len(self._queue)

    @contextmanager
    def listening(self, task: Task, wake: Callable[[], None]) -> Iterator[None]:
        """Within the block `wake` is called, from another thread, whenever the job changes."""
        with self._changed:
            task.listeners.add(wake)
        try:
            yield
        finally:
            with self._changed:
                task.listeners.discard(wake)

    def cancel(self, task: Task) -> None:
        """A queued job ends at once, a running one at its next progress; an ended one is forgotten."""
        with self._changed:
            if task.state in ENDED:
                self._forget(task)
            elif task in self._queue:
                self._queue.remove(task)
                self._end(task, "cancelled", error=fault(Cancelled(STOPPED)))
            else:
                task.stop = True

    def stop(self) -> None:
        """End all jobs and accept no more; does not wait."""
        with self._changed:
            self._stopping = True
            for task in list(self._tasks.values()):
                if task.state not in ENDED:
                    self.cancel(task)
            self._changed.notify_all()

    def close(self) -> None:
        """`stop`, and wait for the thread."""
        self.stop()
        self._thread.join()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            started = time.monotonic()
            self._run(task)
            self._seconds.append(time.monotonic() - started)
            self._tidy()

    def _next(self) -> Task | None:
        with self._changed:
            while not self._queue:
                if self._stopping:
                    return None
                self._changed.wait(TIDY_S)
                self._tidy()
            task = self._queue.popleft()
            task.state = "running"
            for waiting in (task, *self._queue):  # all of them moved up
                self._tell(waiting)
            return task

    def _run(self, task: Task) -> None:
        """A job's own failure is its record's; nothing that it does may end the thread."""
        result: Record | None = None
        error: Record | None = None
        try:
            result = self._result(task)
            state: State = "done"
        except Cancelled:
            state, error = "cancelled", fault(Cancelled(STOPPED))
        except TaroError as failure:
            state, error = "failed", fault(failure)
        except Exception as failure:  # a bug of ours: the service goes on, and whoever runs it sees where
            traceback.print_exception(failure)
            message = f"an internal error ({type(failure).__name__}); the service's own output says where"
            state, error = "failed", {"type": "InternalError", "message": message, "exit_code": 1}
        if error is not None:
            error["message"] = self._named(task, error["message"])
        with self._changed:
            self._end(task, state, result, error)

    def _result(self, task: Task) -> Record:
        told_s = 0.0

        def progress(stage: str, fraction: float) -> bool:
            nonlocal told_s
            now_s, news = time.monotonic(), stage != task.stage
            with self._changed:
                task.stage, task.progress = stage, int(100 * fraction) / 100
                if news or now_s - told_s > TELL_S:
                    told_s = now_s
                    self._tell(task)
            return not task.stop

        record, _ = task.ask.work(self._machine, task.video.path, task.video.name, task.folder, progress)
        for take, entry in enumerate(record.get("takes", ()), 1):
            entry["url"] = f"/v1/jobs/{task.id}/takes/{take}"
        record["video"] = task.video.name
        if "warnings" in record:
            record["warnings"] = [self._named(task, warning) for warning in record["warnings"]]
        return record

    def _named(self, task: Task, text: str) -> str:
        """With the names that the caller knows in place of our own files'."""
        return text.replace(str(task.video.path), task.video.name).replace(f"{task.folder}/", "")

    def _end(
        self, task: Task, state: State, result: Record | None = None, error: Record | None = None
    ) -> None:
        task.result, task.error, task.ended_s = result, error, time.monotonic()
        task.state = state
        task.video.used_s = task.ended_s
        if state != "done":
            shutil.rmtree(task.folder, ignore_errors=True)
        self._tell(task)

    def _tell(self, task: Task) -> None:
        for wake in tuple(task.listeners):
            wake()

    def _forget(self, task: Task) -> None:
        self._tasks.pop(task.id, None)
        shutil.rmtree(task.folder, ignore_errors=True)

    def _tidy(self) -> None:
        """Drop what is too old, too many or too large, the oldest first; never the newest."""
        with self._changed:
            used = {task.video for task in self._tasks.values() if task.state not in ENDED}
            ended = sorted((t for t in self._tasks.values() if t.state in ENDED), key=lambda t: t.ended_s)
            room = self._settings.keep_bytes - self._shelf.drop_old(used)
            sizes = [_size(task.folder) for task in ended]
            for k, task in enumerate(ended[:-1]):
                too_old = time.monotonic() - task.ended_s > self._settings.keep_s
                if too_old or len(ended) - k > self._settings.keep_jobs or sum(sizes[k:]) > room:
                    self._forget(task)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0
