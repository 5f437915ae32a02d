"""What jobs spend, on the disk while they run."""

import os
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.store.spending import SpendingRecord, Spent, Total, read_spent, total


class Clock:
    """Seconds that pass when they are told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_record_is_written_at_once_then_each_second_in_each_place(tmp_path: Path) -> None:
    clock, places = Clock(), [tmp_path / "build", tmp_path / "run"]
    record = SpendingRecord("qlora_adapter", 2, places, clock)
    written = []
    for seconds in (0, 0.5, 0.5, 0.25, 3):
        clock.now += seconds
        written.append(record.write_if_due())
    assert written == [True, False, True, False, True]
    clock.now += 0.5
    record.write()
    for place in places:
        [job] = read_spent(place)
        assert (job.stage, job.seconds, job.gpus) == ("qlora_adapter", 4.75, 2)
        assert len(list(place.iterdir())) == 1


def test_what_a_job_waits_for_a_place_is_counted_apart(tmp_path: Path) -> None:
    """A half of it has one after 100 s, all of it after 10 more, and it waits again, resubmitted, after 5 more."""
    clock = Clock()
    record = SpendingRecord("qlora_adapter", 4, [tmp_path], clock, share=0.0)
    for share, seconds in ((0.0, 100), (0.5, 10), (1.0, 5), (0.0, 20)):
        record.at_work(share)
        clock.now += seconds
        record.write_if_due()
    [job] = read_spent(tmp_path)
    assert (job.seconds, job.waited_s, job.gpu_seconds) == (10, 125, 40)
    assert total([job]) == Total(counted=40, gpu_seconds=40, waited_s=125)


def test_gpus_multiply_seconds_and_a_cpu_counts_once() -> None:
    jobs = [Spent("a", 10, 4), Spent("b", 5, 0)]
    assert total(jobs) == Total(counted=45, gpu_seconds=40)
    assert total([]) == Total()


def test_jobs_come_in_their_order_and_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    for began in (3.0, 1.0, 2.0):
        record = SpendingRecord(f"job {began:g}", 0, [tmp_path], Clock())
        record.began = began
        record.write()
    (tmp_path / "spent-0.json").write_text("{")
    (tmp_path / "spent-1.json").write_text("[]")
    (tmp_path / "spent-2.json").write_text('{"stage": "a", "seconds": "many", "gpus": 1, "began": 0}')
    (tmp_path / "spent-3.json").write_bytes(b"[" * 100_000)
    (tmp_path / "spent-4.json").mkdir()
    os.mkfifo(tmp_path / "spent-5.json")
    (tmp_path / "recipe").write_text("{}")
    assert [job.stage for job in read_spent(tmp_path)] == ["job 1", "job 2", "job 3"]


def test_what_is_no_record_is_set_aside_once_by_who_writes_beside_it(tmp_path: Path, caplog: Any) -> None:
    run = tmp_path / ".runs" / "run"
    run.mkdir(parents=True)
    (run / "spent-0.json").write_text("{")
    (run / "spent-1.json").mkdir()
    os.mkfifo(run / "spent-2.json")
    record = SpendingRecord("first", 0, [run], Clock())
    record.write()
    (run / "spent-3.json").write_text("[]")
    record.write()
    assert [job.stage for job in read_spent(run)] == ["first"]
    aside = sorted(file.name.split(".aside-")[0] for file in run.glob(".spent-*"))
    assert aside == [".spent-0.json", ".spent-1.json", ".spent-2.json"], "looked at by the first write only"
    assert "spent-0.json was not a record of what a job spent that can be used; it is set aside as" in caplog.text


@pytest.mark.parametrize("above", [0, 1])
def test_a_file_in_a_folder_s_place_is_set_aside(tmp_path: Path, above: int) -> None:
    folder = tmp_path / "build" / "spent"
    place = [folder, *folder.parents][above]
    place.parent.mkdir(exist_ok=True)
    place.write_text("a file")
    SpendingRecord("a", 0, [folder], Clock()).write()
    assert [job.stage for job in read_spent(folder)] == ["a"]
    assert [file.read_text() for file in place.parent.glob(f".{place.name}.aside-*")] == ["a file"]


def test_a_place_that_cannot_be_written_stops_no_job() -> None:
    SpendingRecord("a", 0, [Path("/proc/1/nobody/writes")], Clock()).write()


@pytest.mark.parametrize("field", ["seconds", "gpus", "began"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, "-5"])
def test_a_number_that_no_job_spends_counts_for_nothing(tmp_path: Path, field: str, value: str) -> None:
    if (field, value) == ("began", "-5"):
        return  # a clock that stands before 1970
    values = {"seconds": "1", "gpus": "1", "began": "1"} | {field: value}
    text = ", ".join(f'"{name}": {number}' for name, number in values.items())
    (tmp_path / "spent-0.json").write_text(f'{{"stage": "a", {text}}}')
    SpendingRecord("real", 0, [tmp_path], Clock()).write()
    assert [job.stage for job in read_spent(tmp_path)] == ["real"]
