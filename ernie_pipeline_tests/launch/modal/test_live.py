"""One job on Modal, from its submission to its files: what it says arrives while it runs, and nothing is by disk."""

from typing import Any

from ernie_pipeline_tests.launch.modal.steps import Steps, made


def test_messages_arrive_while_it_runs_and_its_files_are_the_step_s_after_a_preemption_too(steps: Steps) -> None:
    """The job waits for an object that the step writes on hearing of the sixth step; before, its machine is taken."""
    heard: list[int] = []
    preempted: list[int] = []

    def hear(values: dict[str, Any]) -> None:
        heard.append(values["step"])
        if values["step"] == 5 and not preempted:
            preempted.append(steps.modal.calls[0].pid)
            steps.modal.calls[0].preempt()
            steps.go()

    launch = steps.launch()
    result, log = steps.run(launch, hear)
    assert result.success, log
    assert heard == list(range(20))
    assert [line for line in log if line.startswith("step ")] == [f"step {n}" for n in range(20)]
    assert len(steps.modal.calls) == 1, "Modal starts the same input again"
    assert "going on after step 6" in log
    assert not any("was lost" in line or "stopped by" in line for line in log)
    assert made(launch) == list(range(20))
    assert {file.name for file in launch.job.out.iterdir()} == {"made", "reports"}  # type: ignore[attr-defined]
