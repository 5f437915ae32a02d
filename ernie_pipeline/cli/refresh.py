"""`refresh`: build what the plan says, and nothing else, within the budget, under Dagster's own log."""

from ernie_pipeline.cli.build import build, interrupted, refusal, spent, warnings_of
from ernie_pipeline.cli.output import ERROR, FRESH
from ernie_pipeline.cli.plan import plan_with_costs, reads, render_plan
from ernie_pipeline.orchestration.up import named_dagster_home, warnings_of_home
from ernie_pipeline.recipe.budget import Budget
from ernie_pipeline.recipe.settings import Settings


def refresh() -> int:
    """Print the plan, and run Dagster on what is not fresh, then how things are; exit status 0 when all was built.

    4 when it was not started, because it is estimated to pass the budget; 128 and the signal's number when it was
    interrupted. Raises `PipelineError`, and starts nothing, where the plan is refused. A gate that the adapter does not
    pass is no failure: the model is registered, not promoted, and a warning says why.
    """
    budget, (plan, costs) = Budget.from_environment(), plan_with_costs()
    settings = Settings.from_environment()
    print(f"{reads(settings)}\n\n{render_plan(plan, costs, budget)}", flush=True)
    if plan.fresh:
        return FRESH
    status = refusal(plan, costs, budget)
    if status is not None:
        return status
    named_dagster_home()  # which tells one that Dagster would not take
    for words in warnings_of_home(settings):
        print(f"warning: {words}", flush=True)
    ended, name = build(plan.to_build)
    built = ended.returncode == 0
    if built:
        now, costs_now = plan_with_costs()
        print(render_plan(now, costs_now, budget), flush=True)
        for words in warnings_of(now):
            print(f"warning: {words}", flush=True)
    elif ended.signal:
        print(interrupted(plan, "ernie refresh"), flush=True)
    print(spent(name, budget, "This refresh"), flush=True)
    if ended.signal and not built:
        return 128 + ended.signal
    return FRESH if built else ERROR  # Dagster's last lines say why
