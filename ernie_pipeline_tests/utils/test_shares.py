"""Shares as people write them."""

from ernie_pipeline.utils.shares import as_shown, between, percent, points, points_between


def test_shares_and_gains() -> None:
    assert (percent(0.7341), percent(None), percent(1 / 3, digits=0)) == ("73.4 %", "", "33 %")
    assert between(0.679, 0.788) == "67.9 to 78.8 %"
    assert (points(0.09486), points_between(-0.0523, 0.1397)) == ("+9.5 points", "-5.2 to +14.0")


def test_what_a_job_wrote_is_shown_as_everywhere_else_and_names_stay_as_they_are() -> None:
    assert as_shown("accuracy 77.9% (72.4% to 82.6%), 5 % of %s") == "accuracy 77.9 % (72.4 % to 82.6 %), 5 % of %s"
    assert as_shown("CPU, 1 threads: 0.00% of 11 threads.") == "CPU, 1 thread: 0.00 % of 11 threads."
    named = "/data/50%.csv, /50%/x, sqlite:////v1%3F.db"
    assert as_shown(named) == named
