"""A run as it goes: one live line a stage on a terminal, plain lines elsewhere, from what the logger `told` wrote."""

import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ernie_pipeline.cli.output import is_terminal
from ernie_pipeline.launch.pacing import COUNT

STEPS = re.compile(r"step \d+/\d+: ")
"""How a step is told in words, which its values tell too."""
PLAIN_S = 15.0
"""Between two plain lines on the progress of a stage."""
COLOURS = {"built": "green", "reused": "cyan", "building": "yellow", "failed": "red", "stopped": "red"}


@dataclass
class Line:
    """A stage. `seconds`: of the build; `first`: when it was first told how much of it is done, and how much;
    `told`: when it was last a plain line, whose detail was `shown`."""

    asset: str
    state: str
    detail: str = ""
    began: float = 0.0
    first: tuple[float, int] | None = None
    told: float = 0.0
    shown: str = ""
    failure: str = ""

    def progress(self, values: dict[str, Any]) -> None:
        """Take what a job reported as values, where that says how far it is."""
        if "step" not in values or "max_steps" not in values:
            return
        parts = [f"step {values['step']} of {values['max_steps']}"]
        parts += [f"{name} {values[key]:.4g}" for key, name in SHOWN.items() if key in values]
        if "tokens_per_s" in values:
            parts.append(f"{values['tokens_per_s']:,.0f} tokens/s")
        if left := values.get("seconds_left"):
            parts.append(_left(float(left)))
        self.detail = ", ".join(parts)

    def said(self, words: str, now: float) -> None:
        """Take a sentence, which may say how far it is; a training's steps come as values too."""
        if STEPS.match(words):
            return
        self.detail = words
        counted = COUNT.search(words)
        if counted is None:
            return
        done, total = map(int, counted.groups())
        if self.first is None or done < self.first[1]:
            self.first = (now, done)
        seconds, made = now - self.first[0], done - self.first[1]
        if made and seconds and done < total:
            rate = made / seconds
            self.detail = f"{words}, {rate:.3g}/s, {_left((total - done) / rate)}"


SHOWN = {"loss": "loss", "loss_objective": "validation loss", "reward": "reward", "accuracy": "accuracy"}


def _left(seconds: float) -> str:
    end = datetime.now() + timedelta(seconds=seconds)
    return f"about {seconds:.0f} s left, until {end:%H:%M:%S}"


class RunView:
    """The stages of a run, by what `file` says; to be asked to `look` again and again, and to `end`.

    `states`: of each stage its state and detail before the run.
    """

    def __init__(self, states: Mapping[str, tuple[str, str]], file: Path, console: Console | None = None):
        self.lines = {name: Line(name, state, detail) for name, (state, detail) in states.items()}
        self.warnings: list[str] = []
        lives = is_terminal(sys.stdout)
        self.console = console or Console(highlight=False, soft_wrap=True, force_terminal=lives)
        self._file, self._read = file, 0
        self._width = max(map(len, self.lines))
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self.console, auto_refresh=False)
            self._live.start()
        else:
            for line in self.lines.values():
                self._print(line)

    def look(self) -> None:
        """Take what has come since the last call, and show it."""
        for told in self._new():
            self._take(told)
        if self._live:
            self._live.refresh()
        else:
            self._tell_what_goes_on(time.monotonic())

    def end(self, interrupted: bool) -> None:
        """The last look: what has not come to its end was stopped, or was not begun."""
        self.look()
        for line in self.lines.values():
            if line.state == "building":
                line.state = "stopped"
                line.detail = "" if interrupted else line.detail
                if not self._live:
                    self._print(line)
        if self._live:
            self._live.refresh()
            self._live.stop()

    def _new(self) -> list[dict[str, Any]]:
        if not self._file.is_file():
            return []
        with self._file.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines() if line]

    def _take(self, told: dict[str, Any]) -> None:
        line, what, now = self.lines.get(told["asset"]), told["what"], time.monotonic()
        if line is None:
            return
        if what == "began":
            line.detail = "" if line.state == "waiting" else line.detail  # it waits for nothing any more
            line.state, line.began = "building", now
            self._plain(line, now)
        elif what in ("progress", "said"):
            if what == "said":
                line.said(told["words"], now)
            else:
                line.progress(told["values"])
        elif what == "warned":
            self.warnings.append(f"{line.asset}: {told['words'].removeprefix(f'{line.asset}: ')}")
        elif what == "made":
            self._made(line, told["values"], now)
        elif what == "stopped":
            line.state, line.detail = "stopped", ""
            self._plain(line, now)
        elif what == "failed":
            line.state, line.detail, line.failure = "failed", told["words"], told["words"]
            self._plain(line, now)

    def _made(self, line: Line, values: dict[str, Any], now: float) -> None:
        reused = values.get("reused", False)
        line.state = "reused" if reused else "built"
        line.detail = "" if reused else f"in {now - line.began:.1f} s"
        self._plain(line, now)

    def _tell_what_goes_on(self, now: float) -> None:
        """What stages have come to since they were last told of, every `PLAIN_S`."""
        for line in self.lines.values():
            if line.state == "building" and line.detail != line.shown and now - line.told >= PLAIN_S:
                self._plain(line, now)

    def _plain(self, line: Line, now: float) -> None:
        if self._live is None:
            line.told = now
            self._print(line)

    def _print(self, line: Line) -> None:
        line.shown = line.detail
        print(f"{line.asset:<{self._width}}  {line.state:<8}  {line.detail}".rstrip(), flush=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column()  # the one that gives way
        for line in self.lines.values():
            detail = line.detail
            if line.state == "building" and not COUNT.search(detail):
                detail = f"{time.monotonic() - line.began:.0f} s  {detail}"
            shown = Text(" ".join(detail.split()), no_wrap=True, overflow="ellipsis")
            table.add_row(line.asset, Text(line.state, COLOURS.get(line.state, "dim")), shown)
        return table
