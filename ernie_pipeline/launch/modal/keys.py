"""Where a job is in the bucket.

Below `jobs/<stage>-<fingerprint>/<job>/`:
  `record`                         whose turn it is: the attempts, by name and number; written by steps, on a condition
  `<attempt>/call`                 the job, for the function
  `<attempt>/heartbeat`            who is at work, anew each second, on a condition; or that another attempt is
  `<attempt>/stop`                 the step asks to save and end
  `<attempt>/<start>/messages.<first byte>`, `error-<rank>`, `out/<file>`: what one start of the function wrote
  `<attempt>/sealed`               which files of which start are what the job made; the first one counts
  `checkpoints/<number>/`          as `store/shared/carried.py` has them
and beside the jobs `calls/<name on the engine>`: Modal's own name of a call.

A function that another one has taken the job from goes on writing below its own attempt and start: nobody looks there.
"""

from pathlib import Path

from ernie_pipeline.store.shared.carried import JOBS

RECORD, CALL, HEARTBEAT, STOP, SEALED = "record", "call", "heartbeat", "stop", "sealed"
MESSAGES, ERROR, OUT = "messages", "error-", "out"
CHECKPOINTS = "checkpoints"
CALLS = "calls"

STARTS = 1000
"""Of one attempt, at most: the numbers of checkpoints go up with the attempt, and within it with the start."""


def job_place(folder: Path) -> str:
    """The folder of keys of the job whose folder is `<...>/<stage>/<fingerprint>/<any>/<job>`."""
    state = folder.parent.parent
    return f"{JOBS}/{state.parent.name}-{state.name}/{folder.name}"


def call_key(name: str) -> str:
    """Of the call with that name on the engine, which is `ernie-<stage>-<fingerprint>-<8 digits>-<8 digits>`."""
    build = name.removeprefix("ernie-").rsplit("-", 2)[0]
    return f"{JOBS}/{build}/{CALLS}/{name}"
