"""`python -m ernie_pipeline.launch.kubernetes.init COMMAND...`: the first process of a pod's container.

The kernel keeps a signal from process 1 that has no handler for it, and nobody but process 1 takes in the orphans of
the others. So this one hands SIGTERM, by which Kubernetes ends a pod, on to the command, and ends as it does.
"""

import os
import signal
import sys


def main(command: list[str]) -> int:
    """Run the command; its exit status, 128 and the number for a signal. 127 where it cannot be started."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    asked: list[int] = []
    child = 0

    def hand_on(number: int, _: object) -> None:
        asked.append(number)
        if child:
            os.kill(child, number)

    for number in numbers:
        signal.signal(number, hand_on)  # before there is a child: a signal that comes meanwhile is kept for it
    try:
        child = os.posix_spawnp(command[0], command, os.environ, setsigdef=numbers)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return 127
    for each in asked:
        os.kill(child, each)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
