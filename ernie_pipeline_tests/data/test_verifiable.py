import json
import time
from pathlib import Path

import pytest

from ernie_pipeline.data.filter import verifiable
from ernie_pipeline.data.filter.verifiable import drop_unverifiable, unverifiable
from ernie_pipeline.recipe.sections import Filters
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.data.samples import frame

ON = Filters(unverifiable_answer=True)
GOOD = ["72", "1,000", r"\frac{333}{1997}", "(0,1]", r"\{1,2\}", "x=3", r"2\pi", "10 000"]
BAD = [r"x \to y", "1 +", "?"]


def test_answers_that_math_verify_parses_stay_and_the_findings_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "new" / "cache.json"
    rows = frame([("What is it?", answer) for answer in [*GOOD, *BAD, GOOD[0]]])
    kept, dropped = drop_unverifiable(rows, ON, cache)
    assert kept["answer"].to_list() == [*GOOD, GOOD[0]]
    assert dropped["line"].to_list() == [9, 10, 11]
    assert set(dropped.select("filter", "reason").rows()) == {
        ("unverifiable_answer", "math-verify cannot parse the answer")
    }
    assert set(json.loads(cache.read_text())["found"]) == {*GOOD, *BAD}
    assert [file.name for file in cache.parent.iterdir()] == ["cache.json"]

    monkeypatch.setattr(verifiable, "_asked", lambda *_: pytest.fail("asked again"))
    again, _ = drop_unverifiable(rows, ON, cache)
    assert again.equals(kept)


def test_switched_off_it_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiable, "_asked", lambda *_: pytest.fail("asked"))
    rows = frame([("What is it?", "1 +")])
    kept, dropped = drop_unverifiable(rows, Filters())
    assert kept.equals(rows)
    assert dropped.schema == drop_unverifiable(rows.clear(), ON)[1].schema


def test_a_broken_cache_or_one_of_other_versions_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiable, "_asked", lambda answers, *_: dict.fromkeys(answers, "asked"))
    cache = tmp_path / "cache.json"
    versions = {library: verifiable.version(library) for library in verifiable.LIBRARIES}
    for text in (
        "",
        "{",
        "[]",
        "null",
        '{"versions": 1}',
        json.dumps({"versions": versions, "found": [1]}),
        "[" * 100_000,
    ):
        cache.write_text(text)
        assert unverifiable(["7"], cache) == {"7": "asked"}
        assert json.loads(cache.read_text()) == {"versions": versions, "found": {"7": "asked"}}
    cache.write_text(json.dumps({"versions": versions | {"sympy": "0"}, "found": {"7": None}}))
    assert unverifiable(["7"], cache) == {"7": "asked"}
    cache.write_text(json.dumps({"versions": versions, "found": {"7": None}}))
    assert unverifiable(["7"], cache) == {}


def test_an_answer_that_takes_too_long_is_killed_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    monkeypatch.setattr(verifiable, "_why_not", _sleeps)
    reasons = unverifiable(["slow", "72"], tmp_path / "cache.json", timeout_s=0.5, workers=1)
    assert reasons == {"slow": "math-verify did not parse the answer in 0.5 s"}
    assert set(json.loads((tmp_path / "cache.json").read_text())["found"]) == {"72"}
    assert time.monotonic() - started < 20


def test_a_worker_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiable, "_why_not", _dies)
    with pytest.raises(PipelineError, match=r"could not be asked about the answer '72' .*unverifiable_answer = false"):
        unverifiable(["72"], workers=1)


def _sleeps(answer: str, timeout_s: float) -> str | None:
    time.sleep(60 if answer == "slow" else 0)
    return None


def _dies(answer: str, timeout_s: float) -> str | None:
    import os

    os._exit(3)
