"""The stage that there is only where the recipe's table [publish] names a repository of the hub."""

from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.staleness.stage import Stage

PUBLISHED = "published_model"


def published_stages(recipe: Recipe, libraries: tuple[str, ...]) -> dict[str, Stage]:
    """It by its name, or nothing. `libraries`: those that load and compute a model.

    Not what draws the curve or carries the files: nobody wants a commit for another version of that.
    """
    if not recipe.publish.repo:
        return {}
    above = ("math_split", "base_model", "qlora_adapter", "base_evaluation", "adapter_evaluation", "registered_model")
    stage = Stage(
        name=PUBLISHED,
        inputs=above,
        recipe=("publish", "registry.model_name", "quantization", "lora", "training.backend"),
        code=("ernie_pipeline.registry.publish.publish",),
        libraries=libraries,
        labels=("source", "benchmarks"),
    )
    return {PUBLISHED: stage}
