"""To be asked to stop, by Ctrl-C, a cancelled run or a time limit, without being killed in the middle of a step."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], object] | int


class StopSignals:
    """While entered, the first SIGINT and the first SIGTERM are noted in `requested`; a second one acts as usual.

    Of several processes that train together, one may be asked and another not, or later: they have to agree on the
    step after which they stop, and to wait for each other before the first of them ends. (torchrun sends SIGTERM to
    those that are left as soon as one has failed, and kills them 30 s later.)

    Outside of the main thread, where Python allows no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = ""
        """The name of the first signal that came, such as "SIGTERM", or ""."""
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before is not None and before is not signal.SIG_IGN:  # not Python's to restore; not to be heard
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = self.requested or signal.Signals(number).name
        signal.signal(number, self._before[number])
