"""One job on an engine, followed by a step: found again or submitted, and submitted again when it is lost."""

import sys
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import dagster as dg

from ernie_pipeline.launch.child import how_it_failed, left_error
from ernie_pipeline.launch.detached.engine import Engine, Status, Unreachable
from ernie_pipeline.launch.detached.life import BEAT_S
from ernie_pipeline.launch.detached.messages import POLL_S, MessageFile
from ernie_pipeline.launch.detached.place import Place
from ernie_pipeline.launch.envelope import write_job
from ernie_pipeline.launch.environment import variables_of
from ernie_pipeline.launch.launcher import Launch, OnProgress
from ernie_pipeline.launch.listener import Listener
from ernie_pipeline.utils.errors import PipelineError

ASK_S = 1.0
"""Between two questions to the engine."""
SETTLE_S = 2.0
"""After a job has ended: what it wrote last may take a moment to be seen from another machine."""
END_S = 10.0
"""What a process that has said why it fails may take to end."""
AGAIN = "run again: it goes on from what it has saved"


@dataclass(frozen=True)
class Patience:
    """`retries`: how often a lost job is submitted again; `quiet_s`: without a heartbeat it is lost after so long;
    `away_s`: how long an engine may not answer while the job is not heard of either."""

    retries: int = 2
    quiet_s: float = 60.0
    away_s: float = 300.0


class PastLimit(PipelineError):
    """The job ran past its time, or may go on no more for another reason."""


class Followed:
    """A job on the engine, each attempt at it under a name of its own: of `key`, which is the build's, and the attempt.

    Ray holds on to a name for a while after its job is gone, so none is given twice. Enter `open_session`, call
    `begin`, then `poll` until it is done.
    """

    def __init__(
        self, context: dg.AssetExecutionContext, launch: Launch, engine: Engine, key: str, place: Place,
        patience: Patience, on_progress: OnProgress,
    ):  # fmt: skip
        self.context, self.launch, self.engine, self.key, self.place = context, launch, engine, key, place
        self.patience, self.listener = patience, Listener(place.folder, on_progress)
        self.reader, self.attempts, self.done = MessageFile(place.messages), 0, False
        self.reader.paused = True
        self._to_submit, self._status, self._asked, self._told = False, Status("waiting"), 0.0, ""
        self._beat, self._heard, self._answered = place.last_beat, 0.0, time.monotonic()
        self._ended = self._sealed = self._began = 0.0
        self._deaf = self._stopped_waiting = False
        self._anew = False
        self._read_before = 0

    @property
    def name(self) -> str:
        """Of the latest attempt, on the engine."""
        return f"{self.key}-{self.place.attempt[:8]}"

    def open_session(self) -> AbstractContextManager[dg.PipesSession]:
        """To be entered before anything else: by it the job's messages come."""
        return dg.open_pipes_session(self.context, dg.PipesEnvContextInjector(), self.reader)

    def begin(self, session: dg.PipesSession) -> None:
        """Find the job that an earlier step has left, done or at work, or submit it; then its messages count."""
        self.listener.session = session
        if self._was_done():
            return
        status, start = self.engine.status(self.name), time.monotonic()
        while status.state in ("waiting", "running") and self.place.stop_asked:  # by a step that did not see it end
            if status.state == "waiting":  # it never began, and an engine may list it for long
                self.engine.stop(self.name)
                status = Status("ended")
                break
            time.sleep(ASK_S)
            if time.monotonic() - start > self.launch.stop_grace_s:
                self.engine.stop(self.name)
            status = self.engine.status(self.name)
        if (
            self.place.attempt
            and not self.place.spoilt
            and (status.state in ("waiting", "running") or self._is_beating(status))
        ):
            self.context.log.info(f"{self.launch.name} is under way as {self.name} on {self.engine.title}: attached")
            self._heard, self.reader.paused = time.monotonic(), False
            return
        if self._was_done():  # since it was asked
            return
        self._anew = True
        with suppress(Unreachable):  # it does answer: it may take no jobs yet, and `poll` submits then
            self._submit()

    def _was_done(self) -> bool:
        if not self.place.intact():
            return False
        self.context.log.info(f"{self.launch.name} was done when its step ended: taking over what it made")
        self.reader.paused = False
        return True

    def poll(self) -> bool:
        """Whether it is done. Raises `PipelineError` for one that failed, `Unreachable` for an engine that is gone."""
        self.listener.listen()
        now = time.monotonic()
        if self.done or self._is_sealed(now):
            self.done = True
            return True
        if not self._to_submit and (failure := self.listener.failure or left_error(self.place.folder)):
            raise PipelineError(failure)
        self._feel(now)
        if now - self._asked >= ASK_S:
            self._asked = now
            try:
                self._refresh(now)
                self._ask(now)
            except Unreachable:
                if now - max(self._answered, self._heard) > self.patience.away_s:
                    raise
        return False

    @property
    def at_work(self) -> bool:
        """Whether it has a place to run: it was heard of, since it was submitted last."""
        return bool(self._began) and not self.done

    def has_ended(self) -> bool:
        """Whether nothing of it is at work any more, as far as can be told."""
        if self._stopped_waiting:
            return True
        with suppress(PipelineError):
            self.place.refresh()
        self.listener.listen()
        self._feel(time.monotonic())
        try:
            ended = self.engine.status(self.name).state in ("ended", "unknown")
            if ended and not self.listener.failure:  # its last words may have come just now
                self.place.refresh()
                time.sleep(2 * POLL_S)
                self.listener.listen()
            return ended
        except Unreachable:
            return time.monotonic() - self._heard > 5 * BEAT_S

    def ask_to_stop(self) -> None:
        """Ask it to save its work and end; one that still waits for a place to run is ended at once.

        Should it find one in this moment, it is asked, as any other.
        """
        self.place.ask_to_stop()
        if self._still_waits():
            self.engine.stop(self.name)
            self._stopped_waiting = True

    def _still_waits(self) -> bool:
        """Asked now: what was told a second ago may be over, and the job near its first checkpoint."""
        with suppress(PipelineError):
            self.place.refresh()
        self._feel(time.monotonic())
        said = self.reader.read > self._read_before
        return not self._began and not said and self.engine.status(self.name).state == "waiting"

    def show_output(self) -> None:
        """Of one that failed with a sentence: what else it said, once it has ended."""
        start = time.monotonic()
        if not (self.listener.failure or left_error(self.place.folder)):
            return
        with suppress(Unreachable):
            while (status := self.engine.status(self.name)).state == "running" and time.monotonic() - start < END_S:
                time.sleep(ASK_S / 4)
            if status.output:
                print(status.output, file=sys.stderr)

    def _submit(self) -> None:
        self._to_submit, self._ended, self._heard, self._began = True, 0.0, 0.0, 0.0
        self._read_before = self.reader.read
        if self.place.attempt:
            self.engine.stop(self.name)
        attempt = self.place.begin(self._anew)
        self._anew = self.reader.paused = False
        file = write_job(self.place.folder, self.launch.work, self.launch.job, attempt=attempt)
        session = self.listener.session
        pipes = session.get_bootstrap_env_vars() if session else {}
        self.engine.submit(self.name, self.launch, file, {**variables_of(self.launch), **pipes})
        self._to_submit, self._status = False, Status("waiting")
        self.context.log.info(f"submitted {self.launch.name} as {self.name} to {self.engine.title}")

    def _is_beating(self, status: Status) -> bool:
        """Of a job that the engine does not know, or takes for ended: whether it goes on all the same."""
        before, start = self.place.last_beat, time.monotonic()
        while status.state in ("unknown", "ended") and before and time.monotonic() - start < 3 * BEAT_S:
            if self.place.last_beat != before:
                return True
            time.sleep(BEAT_S / 4)
            self.place.refresh()
        return False

    def _is_sealed(self, now: float) -> bool:
        """Sealed, and its last message read, or not to be waited for."""
        if not self.place.sealed:
            return False
        self._sealed = self._sealed or now
        return self.reader.closed or now - self._sealed > SETTLE_S

    def _refresh(self, now: float) -> None:
        """Get what the job wrote. While that cannot be had, its silence says nothing of it."""
        try:
            self.place.refresh()
        except Unreachable:
            self._deaf = True
            raise
        if self._deaf:
            self._deaf, self._heard = False, self._heard and now

    def _feel(self, now: float) -> None:
        """Note a heartbeat."""
        if (beat := self.place.last_beat) != self._beat:
            self._beat, self._heard = beat, now
            self._began = self._began or now
        if self.place.stop_asked:
            return
        limit = self.launch.time_limit_s
        if limit and self._began and now - self._began > limit:
            past = f"{self.launch.name} ran past gpu.time_limit_s = {limit:g} and was ended"
            raise PastLimit(f"{past}; raise the limit, or {AGAIN}")
        if sentence := self.launch.stop_if():
            raise PastLimit(sentence)

    def _ask(self, now: float) -> None:
        """Act on what the engine says."""
        if self._to_submit:
            self._submit()
        status = self._status = self.engine.status(self.name)
        self._answered = now
        if status.state == "waiting":
            why = f" ({status.why})" if status.why else ""
            self._tell(f"{self.name} waits for a worker of {self.engine.title}{why}")
        elif status.state == "running":
            self._heard = self._heard or now
            # before its first heartbeat it may have much to load, from a disk that is slow
            limit = self.patience.quiet_s if self._began else max(self.patience.quiet_s, self.patience.away_s)
            if now - self._heard > limit:
                self._lost(f"nothing was heard of it for {limit:g} s")
        elif status.state == "unknown":
            if now - self._heard > 5 * BEAT_S:
                self._lost(f"{self.engine.title} no longer knows it")
        else:
            self._ended = self._ended or now
            # what is told as ended and beats goes on: the engine may be wrong, the heartbeat not
            if now - self._ended > SETTLE_S and now - self._heard > 5 * BEAT_S:
                self._end_of(status)

    def _end_of(self, status: Status) -> None:
        """Of a job that has ended without a sealed folder and without a sentence."""
        if status.output:
            print(status.output, file=sys.stderr)
        if failure := status.failure or how_it_failed(status.exit_status, self.place.out):
            raise PipelineError(failure)
        if status.is_lost:
            self._lost(status.why)
            return
        raise PipelineError(
            f"{self.launch.name} failed with exit status {status.exit_status}; nothing was stored; its traceback is in "
            "this step's stderr"
        )

    def _lost(self, why: str) -> None:
        self.attempts += 1
        if self.attempts > self.patience.retries:
            times = "once" if self.attempts == 1 else f"{self.attempts} times"
            raise PipelineError(f"{self.launch.name} was lost {times} on {self.engine.title} ({why}); {AGAIN}")
        self.context.log.warning(f"{self.launch.name} was lost ({why}): submitting it again")
        self._submit()

    def _tell(self, line: str) -> None:
        """Once, not at each question."""
        if line != self._told:
            self._told = line
            self.context.log.info(line)
