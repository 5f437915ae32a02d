"""What an interrupted build has left, from which the next one goes on: in words, for `plan` and after an interrupt."""

from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.left_to_do import kept_answers, newest_step
from ernie_pipeline.staleness.plan import RefreshPlan
from ernie_pipeline.utils.errors import PipelineError


def goes_on(chain: Chain, plan: RefreshPlan) -> dict[str, str]:
    """Of each asset that is to be built, and of which something is kept, a clause: "goes on after step 11 of 50"."""
    found = {
        asset.asset: _kept(chain, asset.asset, asset.fingerprint) for asset in plan.assets if asset.state != "fresh"
    }
    return {name: words for name, words in found.items() if words}


def _kept(chain: Chain, name: str, fingerprint: str | None) -> str:
    if name == "qlora_adapter":
        step = newest_step(chain.store.unfinished(name, fingerprint) / "checkpoints") if fingerprint else 0
        most = chain.recipe.training.max_steps
        return f"goes on after step {step}{f' of {most}' if most else ''}" if step else ""
    try:
        number = kept_answers(chain, name) if chain.stages[name].by_row else 0
    except (PipelineError, OSError):  # what it reads is to be built
        return ""
    return f"{number} answer{' is' if number == 1 else 's are'} kept" if number else ""
