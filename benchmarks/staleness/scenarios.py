"""The numbered scenarios: what is changed, what ought to run, and how a verdict comes out of what was seen.

A scenario has one part or several. For each part the tool's status is taken, its building command is run once, and then
the executions, the outputs (held against `chain.truth`) and the status are taken again.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from chain import BASE, STAGES, append_row, edit, set_library, truth, write_project
from tool import Done, Tool, kill_tree, wait_for

FROM_TRAIN = frozenset({"train", "evaluate", "register"})
FROM_SPLIT = FROM_TRAIN | {"split"}
ALL = frozenset(STAGES)
NONE: frozenset[str] = frozenset()


@dataclass
class Part:
    """What was seen in one part of a scenario."""

    name: str
    expected: list[str]
    verdict: str
    status_before: list[str] | None = None
    ran: list[str] = field(default_factory=list)
    launches: int = 0
    exit_status: int | None = None
    wrong_outputs: list[str] = field(default_factory=list)
    status_after: list[str] | None = None
    note: str = ""


def ordered(stages: set[str] | frozenset[str] | None) -> list[str] | None:
    """The chain's order; None stays None."""
    return None if stages is None else [stage for stage in STAGES if stage in stages]


def wrong_outputs(tool: Tool, root: Path) -> list[str]:
    """The stages whose output is absent or not what it should be now."""
    want, have = truth(root), tool.outputs(root)
    return [stage for stage in STAGES if have.get(stage) != want[stage]]


def judge(expected: frozenset[str], ran: list[str], wrong: list[str], failed: bool, launches: int = 1) -> str:
    """A verdict from observations alone: the exit status, the outputs, what ran beside what had to."""
    said = ["error"] if failed else []
    built_on = [stage for stage in wrong if stage in ran]
    if built_on and len(built_on) < len(wrong):
        said.append(f"misses it and builds {', '.join(built_on)} on it")
    elif wrong:
        said.append("wrong " + ", ".join(wrong) if built_on else "misses it")
    extra = ordered(set(ran) - expected - set(wrong)) or []
    if len(extra) == len(STAGES):
        said.append("runs all")
    elif extra:
        said.append(("runs " if not expected else "also runs ") + ", ".join(extra))
    twice = [stage for stage, count in Counter(ran).items() if count > 1]
    if twice:
        said.append("twice: " + ", ".join(twice))
    if said:
        return "; ".join(said)
    return f"right ({launches} launches)" if launches > 1 else "right"


class Bench:
    """One tool's project, put back to a known state before every part."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.root = tool.home / "project"

    def restore(self, kind: str = "built") -> Path:
        """The project as set up (`fresh`) or as built once (`built`), times of modification included."""
        for name in ("project", "elsewhere", "away"):
            shutil.rmtree(self.tool.home / name, ignore_errors=True)
        shutil.copytree(self.tool.home / kind, self.root, symlinks=True)
        self.tool.clear()
        return self.root

    def observe(self, name: str, expected: frozenset[str], root: Path | None = None, **extra: str) -> Part:
        """Status, one build, outputs, status."""
        root = root or self.root
        before = self.tool.status(root)
        self.tool.clear()
        return self.after(name, expected, root, self.tool.build(root, **extra), before)

    def after(self, name: str, expected: frozenset[str], root: Path, done: Done, before: set[str] | None) -> Part:
        """What is to be seen once a build has ended."""
        ran, wrong, launches = self.tool.ran(), wrong_outputs(self.tool, root), self.tool.launches(done)
        verdict = judge(expected, ran, wrong, done.status != 0, launches)
        after = self.tool.status(root) if not done.status else None
        note = done.text.strip()[-600:] if done.status else ""
        return Part(
            name=name,
            expected=ordered(expected) or [],
            verdict=verdict,
            status_before=ordered(before),
            ran=ran,
            launches=launches,
            exit_status=done.status,
            wrong_outputs=wrong,
            status_after=ordered(after),
            note=note.replace(str(self.tool.home), "HOME").replace(str(self.tool.venv), "VENV"),
        )


def changed(change: Callable[[Tool, Path], None], expected: frozenset[str]) -> Callable[[Bench], Iterator[Part]]:
    """A scenario of one part: from the built state, make a change, build."""

    def scenario(bench: Bench) -> Iterator[Part]:
        change(bench.tool, bench.restore())
        yield bench.observe("", expected)

    return scenario


def comment(tool: Tool, root: Path) -> None:
    """Another docstring and a comment in split's own file."""
    edit(root / "stages/split.py", '"""The rows that stay', '"""Rows that stay')
    edit(root / "stages/split.py", "    rows = [", "    # one row a line\n    rows = [")


def helper(tool: Tool, root: Path) -> None:
    """A line of clean.py, which split reaches through rows.py."""
    edit(root / "stages/clean.py", ".lower()", ".upper()")


def same_output(tool: Tool, root: Path) -> None:
    """Split's code says the same in other words; the user does by hand what the tool asks for after an edit."""
    old = "[row for row in (kept(row) for row in rows) if row]"
    edit(root / "stages/split.py", old, "list(filter(None, map(kept, rows)))")
    tool.code_edited(root, "split")


def back(bench: Bench) -> Iterator[Part]:
    """Changed, built, changed back; where the change itself went unnoticed there is nothing to go back from."""
    root = bench.restore()
    bench.tool.set_parameter(root, "lr", "0.1", "0.2")
    bench.tool.build(root)
    unnoticed = wrong_outputs(bench.tool, root)
    bench.tool.set_parameter(root, "lr", "0.2", "0.1")
    seen = bench.observe("", NONE)
    if unnoticed:
        seen.verdict = "n/a: the change was missed"
    yield seen


def altered(bench: Bench) -> Iterator[Part]:
    """One byte (once as an editor leaves it, once with the time of modification kept), truncated, the record lost."""
    for name in ("byte", "byte, same mtime", "truncated"):
        path = bench.tool.artifact(bench.restore(), "train")
        content, times = bytearray(path.read_bytes()), path.stat()
        content[20] = ord("x")
        path.unlink()  # it may be a link into a cache
        path.write_bytes(content[: len(content) // 2] if name == "truncated" else content)
        if name == "byte, same mtime":
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        yield bench.observe(name, frozenset({"train"}))
    if bench.tool.forget(bench.restore(), "train"):
        yield bench.observe("record lost", frozenset({"train"}))
    else:
        yield Part("record lost", ["train"], "n/a", note="no way to remove one stage's record")


def libraries(bench: Bench) -> Iterator[Part]:
    for name, library, expected in (("matters", "toymath", FROM_TRAIN), ("does not", "toyplot", NONE)):
        set_library(bench.restore(), library, "2.0")
        yield bench.observe(name, expected)


def two_at_once(bench: Bench) -> Iterator[Part]:
    """Two builds of a fresh project, stages slowed to a second so that they meet."""
    root = bench.restore("fresh")
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: bench.tool.build(root, TOY_PAUSE="1"), range(2)))
    failed = [done for done in both if done.status]
    seen = bench.after("", ALL, root, failed[0] if failed else both[0], None)
    if failed:
        rest = judge(ALL, seen.ran, seen.wrong_outputs, False)
        ending = "" if rest == "right" else "; " + rest
        seen.verdict = f"{'both fail' if len(failed) == 2 else 'one is refused'}{ending}"
    yield seen


def killed(bench: Bench) -> Iterator[Part]:
    """The base model changed, SIGKILL to the tool and all below it while `train` has written half; then again.

    `split` had been built by then, so only `train` and below have to run.
    """
    tool, root = bench.tool, bench.restore()
    edit(root / BASE, "version 1", "version 2")
    process = tool.start(root, tool.command(root), TOY_HANG="train")
    reached = wait_for(tool.home / "executions.log.hangs", process)
    kill_tree(process.pid)
    process.communicate()
    if not reached:
        yield Part("", ordered(FROM_TRAIN) or [], "not measured", note="the stage was not reached")
        return
    seen = bench.observe("", FROM_TRAIN)
    if seen.exit_status:
        tool.clear()
        done = tool.recover(root)
        if done is None:
            seen.verdict = "stops"
        else:
            then = judge(FROM_TRAIN, tool.ran(), wrong_outputs(tool, root), done.status != 0)
            seen.verdict = f"stops; after its remedy: {then}"
            seen.ran = tool.ran()
            seen.wrong_outputs = wrong_outputs(tool, root)
    yield seen


def elsewhere(bench: Bench) -> Iterator[Part]:
    """The project under another path, the old one gone: all of it; then without the tool's local state, as a clone."""
    for name in ("all copied", "fresh state"):
        root, there = bench.restore(), bench.tool.home / "elsewhere"
        lost = bench.tool.state if name == "fresh state" else ()
        shutil.copytree(root, there, symlinks=True)
        for one in lost:
            shutil.rmtree(there / one)
        root.rename(bench.tool.home / "away")
        if lost:
            for path in [*there.glob("*"), *there.glob("stages/*"), there / BASE]:
                if path.is_file():
                    path.touch()  # a clone has new times of modification
        yield bench.observe(name, NONE, there)


def settings(bench: Bench) -> Iterator[Part]:
    bench.restore()
    yield bench.observe("device", NONE, TOY_DEVICE="cuda:1")
    root = bench.restore()
    (root / "models").mkdir()
    (root / BASE).rename(root / "models/base.bin")
    edit(root / "settings.yaml", BASE, "models/base.bin")
    yield bench.observe("path of the base model", NONE)


def summary(parts: list[Part]) -> str:
    """One cell: parts of the same verdict together, their names left out if that is all of them."""
    verdicts: dict[str, list[str]] = {}
    for part in parts:
        verdicts.setdefault(part.verdict, []).append(part.name)
    if len(verdicts) == 1:
        return parts[0].verdict
    return "; ".join(f"{' / '.join(names)}: {verdict}" for verdict, names in verdicts.items())


def agreement(parts: list[Part]) -> tuple[str, str]:
    """Scenario 19, from all other parts: did what the status named run, and was it silent over wrong outputs?"""
    told = [part for part in parts if part.status_before is not None and not part.exit_status]
    if not told:
        return "n/a", "no report of what a run would execute"
    unlike = [part for part in told if set(part.status_before or []) != set(part.ran)]
    silent = [part for part in told if part.wrong_outputs and not part.status_after]
    more = [part for part in unlike if set(part.ran) - set(part.status_before or [])]
    less = [part for part in unlike if set(part.status_before or []) - set(part.ran)]
    verdict = f"agrees in {len(told) - len(unlike)} of {len(told)}"
    if silent:
        verdict += f"; calls wrong outputs fresh in {len(silent)}"
    return verdict, f"ran more than announced in {len(more)}, less in {len(less)}"


Scenario = Callable[[Bench], Iterator[Part]]
SCENARIOS: dict[int, tuple[str, Scenario | None]] = {
    1: ("nothing changed", changed(lambda tool, root: None, NONE)),
    2: ("a comment and a docstring of a stage's code", changed(comment, NONE)),
    3: ("a line of a helper two imports away", changed(helper, FROM_SPLIT)),
    4: ("a stage's code changed, its output the same", changed(same_output, frozenset({"split"}))),
    5: (
        "raw rows appended that the filter drops",
        changed(lambda tool, root: append_row(root, "?", "none"), frozenset({"raw", "split"})),
    ),
    6: ("raw rows appended that stay", changed(lambda tool, root: append_row(root, "What is 1?", "1"), ALL)),
    7: (
        "a training parameter changed",
        changed(lambda tool, root: tool.set_parameter(root, "lr", "0.1", "0.2"), FROM_TRAIN),
    ),
    8: (
        "an evaluation setting changed",
        changed(lambda tool, root: tool.set_parameter(root, "rows", "4", "2"), frozenset({"evaluate", "register"})),
    ),
    9: ("a parameter changed back", back),
    10: (
        "an artifact deleted",
        changed(lambda tool, root: tool.artifact(root, "train").unlink(), frozenset({"train"})),
    ),
    11: ("an artifact altered, or its record lost", altered),
    12: (
        "the base model changed",
        changed(lambda tool, root: edit(root / BASE, "version 1", "version 2"), FROM_SPLIT),
    ),
    13: ("a library's version changed: one that matters, one that does not", libraries),
    14: ("two builds at once", two_at_once),
    15: ("SIGKILL in the middle of a stage, then again", killed),
    16: ("another machine: copied, the old place gone", elsewhere),
    17: ("only settings changed", settings),
    18: ("a scheduled refresh, only when stale", None),
    19: ("the status agrees with what then runs", None),
}


def run(tool: Tool, numbers: list[int], kept: dict[str, dict], say: Callable[[str], None]) -> dict[str, dict]:
    """The chosen scenarios with one tool, beside the results that are kept."""
    bench = Bench(tool)
    for name in ("fresh", "built", "project"):
        shutil.rmtree(tool.home / name, ignore_errors=True)
    results = dict(kept)
    prepare(tool)
    for number in numbers:
        title, scenario = SCENARIOS[number]
        if scenario is not None:
            try:
                found = list(scenario(bench))
            except Exception as error:
                found = [Part("", [], "not measured", note=f"{type(error).__name__}: {error}"[-900:])]
            entry = {"verdict": summary(found), "source": "measured", "parts": [asdict(part) for part in found]}
        elif number == 18:
            entry = {"verdict": tool.scheduler, "source": "docs", "parts": []}
        else:
            parts = [Part(**part) for result in results.values() for part in result["parts"]]
            verdict, note = agreement(parts)
            entry = {"verdict": verdict, "source": "measured", "note": note, "parts": []}
        results[str(number)] = {"title": title, **entry}
        say(f"{tool.name:17} {number:2}  {entry['verdict']}")
    return {str(number): results[str(number)] for number in SCENARIOS if str(number) in results}


def prepare(tool: Tool) -> None:
    """Write the project and keep it as `fresh`; build it and keep it as `built`."""
    root = tool.home / "project"
    root.mkdir(parents=True)
    write_project(root)
    tool.setup(root)
    shutil.copytree(root, tool.home / "fresh", symlinks=True)
    tool.clear()
    done = tool.build(root)
    if done.status or wrong_outputs(tool, root):
        raise RuntimeError(f"{tool.name}: the first build failed\n{done.text[-3000:]}")
    shutil.copytree(root, tool.home / "built", symlinks=True)
