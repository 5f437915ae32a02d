"""Real signals, to this process and to one of its own."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from ernie_pipeline.training.stop import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_afterwards_all_is_as_before(number: signal.Signals) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals() as stop:
        assert stop.requested == ""
        os.kill(os.getpid(), number)
        assert stop.requested == number.name
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_one_acts_as_usual() -> None:
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_of_the_other_kind_is_noted_too_and_the_first_is_told() -> None:
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested == "SIGTERM"


def test_a_second_sigterm_ends_a_process() -> None:
    work = (
        "import time\nfrom ernie_pipeline.training.stop import StopSignals\n"
        "with StopSignals() as stop:\n    print('ready', flush=True)\n"
        "    while not stop.requested: time.sleep(0.01)\n"
        "    print(stop.requested, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in ("ready\n", "SIGTERM\n"):
            assert process.stdout.readline() == line
            process.terminate()
    assert process.returncode == -signal.SIGTERM


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As a shell starts what runs in its background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.requested == ""
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_changed() -> None:
    seen = []

    def work() -> None:
        with StopSignals() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [("", signal.getsignal(signal.SIGINT))]
