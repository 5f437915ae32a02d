"""Grading: what counts as right, and that no answer can stall, crash or trick it unnoticed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from ernie_pipeline.grading import grade as grading
from ernie_pipeline.grading.extract import last_boxed
from ernie_pipeline.grading.grade import Grade, Grader, grade
from ernie_pipeline.utils.errors import PipelineError

SLOW = r"\boxed{slow}"
"""An answer that `_grade_slowly` never finishes."""

RIGHT = [  # (answer, reference)
    (r"\boxed{0.5}", r"\frac12"),
    (r"\boxed{1000}", "1,000"),
    (r"\boxed{1,000}", "1000"),
    (r"\boxed{10\,000}", "10000"),
    (r"\boxed{10000}", "10 000"),
    (r"\boxed{x=5}", "5"),
    (r"\boxed{5}", "x = 5"),
    (r"\boxed{\{1,2\}}", r"\{2,1\}"),
    (r"\boxed{(-\infty,2)}", r"(-\infty, 2)"),
    (r"\boxed{333/1997}", r"\frac{333}{1997}"),
    (r"\boxed{3\text{ cm}}", "3"),
    (r"\boxed{(x+1)^2}", "x^2+2x+1"),
    (r"\boxed{2x = y}", "y = 2x"),
    (r"\boxed{0.333333}", r"\frac{1}{3}"),
    (r"\boxed{\text{No solution}}", "no solution"),
    (r"\boxed{Yes.}", r"\text{Yes}"),
    (r"\boxed{x \neq 3}", r"x\neq 3"),
    (r"\boxed{\%\#?}", r"\%\#?"),  # parses on neither side, but is the same text
    (r"\boxed{%s}" % ("9" * 6000), "9" * 6000),  # more digits than Python turns into an integer
    (r"first \boxed{4.0}, so \boxed{4}", "4"),
    (r"\boxed{(-\infty, 2)}", "x < 2"),
    (r"\boxed{x < 2}", r"(-\infty, 2)"),
    ("12 + 35 = 47.", "47"),
    (r"The answer is $\frac{3}{4}$", "0.75"),
]
WRONG = [
    (r"\boxed{10}", "1"),
    (r"\boxed{1}", "10"),
    (r"\boxed{1.234}", "1,234"),
    (r"\boxed{0}", "1 000"),
    (r"\boxed{y=5}", "x=5"),
    (r"\boxed{(-\infty, 2]}", r"(-\infty, 2)"),
    (r"\boxed{(2,1)}", "(1,2)"),
    (r"\boxed{1,2,3}", r"\{1,2\}"),
    (r"\boxed{No}", "Yes"),
    (r"\boxed{\frac{1}{0}}", "5"),
    (r"\boxed{5}", r"\frac{1}{0}"),
    (r"\boxed{3}", r"x \neq 3"),
    (r"\boxed{4}, no: \boxed{3}", "4"),
    (r"first \boxed{3}, no: \boxed{4}", "4"),
    (r"\boxed{4}, and so \boxed{5 was cut", "4"),
    (r"\boxed{.}", r"\text{}"),
    ("", "5"),
    (r"\boxed{}", "5"),
    ("I cannot tell.", "5"),
]


OTHERS: set[psutil.Process] = set()
"""What the tests of other files have left running in this process, such as a server that they share."""


@pytest.fixture(scope="module", autouse=True)
def others() -> None:
    OTHERS.update(psutil.Process().children(recursive=True))


@pytest.fixture(scope="module")
def graded() -> dict[tuple[str, str], Grade]:
    pairs = RIGHT + WRONG
    grades = grade([a for a, _ in pairs], [g for _, g in pairs], timeout_s=20, workers=2)
    return dict(zip(pairs, grades, strict=True))


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    """Neither a worker nor a zombie outlives a call; multiprocessing's own resource tracker does, by design."""
    yield
    left = [child for child in psutil.Process().children(recursive=True) if not _is_tracker(child)]
    assert left == []


@pytest.mark.parametrize("pair", RIGHT)
def test_right(graded: dict[tuple[str, str], Grade], pair: tuple[str, str]) -> None:
    assert graded[pair].outcome == "correct"


@pytest.mark.parametrize("pair", WRONG)
def test_wrong(graded: dict[tuple[str, str], Grade], pair: tuple[str, str]) -> None:
    assert graded[pair].outcome == "wrong"


@pytest.mark.parametrize(
    ("pair", "boxed", "extracted"),
    [
        ((r"first \boxed{4.0}, so \boxed{4}", "4"), True, "4"),
        ((r"\boxed{}", "5"), True, None),
        (("12 + 35 = 47.", "47"), False, "12 + 35 = 47."),
        (("I cannot tell.", "5"), False, None),
    ],
)
def test_says_what_it_read(
    graded: dict[tuple[str, str], Grade], pair: tuple[str, str], boxed: bool, extracted: str | None
) -> None:
    assert (graded[pair].boxed, graded[pair].extracted) == (boxed, extracted)


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed {5}", "5"),
        (r"\boxed{x=\boxed{3}}", "3"),
        (r"a { b \boxed{3}", "3"),
        (r"} \boxed{3}", "3"),
        (r"\boxed{\frac{1}{2}", None),
        (r"\boxed{1\}", None),
        (r"\boxed 5", None),
    ],
)
def test_last_boxed(answer: str, content: str | None) -> None:
    assert last_boxed(answer) == content


def test_order_is_kept_and_several_hundred_are_quick() -> None:
    answers = [f"We add and get {n}, so \\boxed{{{n}}}." for n in range(300)]
    references = [f"{n}.0" if n % 3 else f"{n + 1}" for n in range(300)]
    grades = grade(answers, references, timeout_s=20, workers=2)
    assert sum(g.seconds for g in grades) < 15
    assert [g.outcome for g in grades] == ["correct" if n % 3 else "wrong" for n in range(300)]
    assert [g.extracted for g in grades] == [str(n) for n in range(300)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_slow_answer_is_a_timeout_and_the_others_are_graded(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """40 answers go in bundles: those that share one with a slow answer are graded again, by themselves."""
    monkeypatch.setattr(grading, "_grade_all", _grade_slowly)
    answers = [r"\boxed{5}"] * 40
    answers[3] = answers[17] = SLOW
    grades = grade(answers, ["5"] * 40, timeout_s=0.5, workers=workers)
    assert [row for row, g in enumerate(grades) if g.outcome != "correct"] == [3, 17]
    assert grades[3] == Grade("timeout", True, "slow", 0.5, "not graded in 0.5 s")


def test_no_answer_is_costly() -> None:
    boxed = [
        r"((10^{10})!)!",
        r"9^{9^{9^{9}}}",
        r"\sum_{k=1}^{10^9} k",
        r"10^{10^8}!",
        "1e999999999",
        "1+" * 50_000 + "1",
    ]
    boxed += ["(" * 5000 + "5" + ")" * 5000, r"\frac{1}{" * 3000 + "2" + "}" * 3000, ",".join(map(str, range(20_000)))]
    boxed += ["|" * 3000, "".join(rf"\boxed{{{n}}}" for n in range(5000)), r"0.\overline{%s}" % ("12" * 25_000)]
    boxed += [",".join(rf"\sqrt{{{n}}}" for n in range(2, 900)), "0." + "1" * 9000, "{" * 30 + "1" + "}" * 30]
    giants = [rf"\boxed{{{text}}}" for text in boxed]
    giants += ["9**9**9**9", "." * 50_000 + "x", "\\boxed{" * 20_000, "$" * 3000, "-" * 3000, r"\pm 1" * 600]
    giants += [r"\boxed{4} " * 100_000, r"\boxed{\boxed{" * 5000 + "}}" * 5000, "\0" * 5000, "\ud800"]
    for giant, found in zip(giants, grade(giants, ["7"] * len(giants), timeout_s=20), strict=True):
        assert (found.outcome, found.seconds < 2) == ("wrong", True), giant[:80]


def test_the_limit_does_not_count_the_start_of_a_worker() -> None:
    assert grade([r"\boxed{5}"], ["5.0"], timeout_s=0.15)[0].outcome == "correct"  # a worker starts in about 0.4 s


def test_works_in_a_thread() -> None:
    with ThreadPoolExecutor() as threads:
        found = threads.submit(grade, [r"\boxed{0.5}"], [r"\frac12"], timeout_s=20).result()
    assert found[0].outcome == "correct"


@pytest.mark.parametrize(
    "code", ["__import__('os').system('touch {0}')", "open('{0}','w')", 'exec(\'open("{0}","w")\')']
)
def test_code_in_an_answer_is_not_run(tmp_path: Path, code: str) -> None:
    code = code.format(tmp_path / "ran")
    forms = [r"\boxed{%s}", "%s", "The answer is %s", "$%s$", "12 + %s", r"\boxed{\text{%s}}", r"\boxed{\max(1, %s)}"]
    forms += [r"\boxed{x_{%s}}", r"\boxed{\{1, %s\}}", r"\boxed{f(%s)}", r"\boxed{5\%%%s}", r"\boxed{\variable{%s}}"]
    grades = grade([form % code for form in forms], ["5"] * len(forms), timeout_s=20, workers=1)
    assert {g.outcome for g in grades} == {"wrong"}
    assert list(tmp_path.iterdir()) == []


def test_a_killed_worker_is_an_error_and_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "_grade_all", _grade_slowly)
    killed = threading.Thread(target=lambda: _busy_workers(os.getpid())[0].kill())
    killed.start()
    with pytest.raises(PipelineError, match=r"row 1: .*slow.* against '7'.* exit code -9"):
        grade([r"\boxed{5}", SLOW, r"\boxed{6}"], ["5", "7", "6"], timeout_s=30, workers=1)
    killed.join()


@pytest.mark.parametrize(
    ("fault", "told"),
    [("_raise", "grading raised OSError: broken"), ("_exit", "exit code 3"), ("_fill_memory", "MemoryError")],
)
def test_a_fault_in_a_worker_is_an_error(monkeypatch: pytest.MonkeyPatch, fault: str, told: str) -> None:
    if fault == "_fill_memory" and sys.platform != "linux":
        pytest.skip("memory is capped on Linux only")
    monkeypatch.setattr(grading, "_grade_all", globals()[fault])
    with pytest.raises(PipelineError, match=f"row 0: .*{told}") as caught:
        grade(["x" * 10_000] * 200, ["5"] * 200, timeout_s=20, workers=1)  # fills the pipe to the worker, too
    assert len(str(caught.value)) < 400


def test_no_worker_outlives_an_interrupted_caller(tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    script.write_text(
        "from ernie_pipeline.grading.grade import grade\n"
        "from ernie_pipeline_tests.grading.test_grading import SLOW, _grade_slowly, grading\n"
        "grading._grade_all = _grade_slowly\n"
        "if __name__ == '__main__': grade([SLOW] * 2, ['5'] * 2, timeout_s=30)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    caller = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
    workers = _busy_workers(caller.pid)
    caller.send_signal(signal.SIGINT)
    assert caller.wait(timeout=10) != 0
    assert psutil.wait_procs(workers, timeout=2)[1] == []


def test_a_busy_worker_whose_caller_is_gone_ends_by_itself() -> None:
    """Nobody watches this one; the kernel ends it."""
    worker = multiprocessing.get_context("spawn").Process(target=_grade_slowly, args=([(SLOW, "5")], 0.3))
    worker.start()
    worker.join(timeout=20)
    assert worker.exitcode == -signal.SIGPROF


@pytest.mark.parametrize(("references", "timeout_s", "workers"), [([], 1, None), (["1"], 0, None), (["1"], 1, 0)])
def test_bad_arguments(references: list[str], timeout_s: float, workers: int | None) -> None:
    with pytest.raises(ValueError, match="got"):
        grade(["1"], references, timeout_s=timeout_s, workers=workers)


def test_nothing_to_grade() -> None:
    assert grade([], [], timeout_s=1) == []


def test_a_grader_keeps_its_workers_for_the_next_call_and_none_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that was killed in between for its time."""
    monkeypatch.setattr(grading, "_grade_all", _grade_slowly)
    me = psutil.Process()
    others = {*me.children()}
    with Grader(timeout_s=1, workers=1) as grader:
        assert grader.grade([], []) == []
        assert {*me.children()} - others == set(), "they start with the first answer"
        assert [g.outcome for g in grader.grade([r"\boxed{5}", r"\boxed{6}"], ["5", "5"])] == ["correct", "wrong"]
        first = {p for p in {*me.children()} - others if not _is_tracker(p)}
        assert [g.outcome for g in grader.grade([r"\boxed{7}"], ["7"])] == ["correct"]
        assert {p for p in {*me.children()} - others if not _is_tracker(p)} == first
        assert len(first) == 1
        assert [g.outcome for g in grader.grade([SLOW], ["7"])] == ["timeout"]
        assert [g.outcome for g in grader.grade([r"\boxed{7}"], ["7"])] == ["correct"]
    assert {p for p in {*me.children()} - others if not _is_tracker(p)} == set()


def test_an_empty_reference_is_told() -> None:
    with pytest.raises(PipelineError, match="row 1: the reference answer is empty"):
        grade(["1", "2"], ["1", " "], timeout_s=1)


def _is_tracker(process: psutil.Process) -> bool:
    return process in OTHERS or "resource_tracker" in " ".join(process.cmdline())


def _busy_workers(parent: int) -> list[psutil.Process]:
    """The grading workers of `parent`, once one has been at work for longer than it takes to start."""
    for _ in range(300):
        workers = [child for child in psutil.Process(parent).children() if not _is_tracker(child)]
        if any(sum(worker.cpu_times()[:2]) > 0.9 for worker in workers):
            return workers
        time.sleep(0.05)
    raise AssertionError("no worker got to work")


_grade_all = grading._grade_all


def _grade_slowly(pairs: list[tuple[str, str]], timeout_s: float) -> list[Grade]:
    grades = _grade_all(pairs, timeout_s)
    while any(answer == SLOW for answer, _ in pairs):
        pass
    return grades


def _raise(pairs: list[tuple[str, str]], timeout_s: float) -> list[Grade]:
    raise OSError("broken")


def _exit(pairs: list[tuple[str, str]], timeout_s: float) -> list[Grade]:
    os._exit(3)


def _fill_memory(pairs: list[tuple[str, str]], timeout_s: float) -> list[Grade]:
    return [Grade("correct", True, str(len(bytearray(3 * 2**30))), 0.0)] * len(pairs)
