"""The registered model as a folder: code, adapter, pins, signature and input example, written without loading it.

`mlflow.pyfunc.log_model` loads the model and predicts once to validate the example; with a 21 B base that is minutes
and a second copy in memory. `save_model` writes the same folder without; the check after registration loads it once.
"""

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ernie_pipeline

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

PINNED = ("mlflow", "torch", "transformers", "peft", "bitsandbytes")
SERVED_CODE = (
    "__init__.py",
    "demo/__init__.py",
    "models/**/*.py",
    "recipe/__init__.py",
    "recipe/execution.py",
    "recipe/extract.py",
    "recipe/section.py",
    "recipe/sections.py",
    "recipe/suites.py",
    "registry/__init__.py",
    "registry/serving/*.py",
    "store/*.py",
    "store/hashing/*.py",
    "utils/*.py",
)


def write_model_folder(
    folder: Path,
    *,
    adapter: Path,
    served: dict[str, Any],
    example: dict[str, str],
    card: str,
    mlflow_model: "Model",
    staging: Path,
) -> None:
    """Write the MLflow model of `adapter` into the new folder `folder`; `example` holds a question and its answer."""
    import mlflow
    import pandas as pd

    staged_pins = staging / "model.json"
    staged_pins.write_text(json.dumps(served, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    mlflow.pyfunc.save_model(
        path=folder,
        mlflow_model=mlflow_model,
        python_model=str(Path(__file__).with_name("served_model.py")),
        artifacts={"adapter": str(adapter), "served": str(staged_pins)},
        code_paths=[str(stage_code(staging))],
        signature=signature(served["max_new_tokens"]),
        input_example=pd.DataFrame({"question": [example["question"]]}),
        pip_requirements=requirements(),
    )
    saved_adapter = next(folder.glob("artifacts/*/adapter_config.json")).parent
    (saved_adapter / "README.md").write_text(card, encoding="utf-8")


def stage_code(staging: Path) -> Path:
    """A copy of the part of this package that a served model runs: the models and what they stand on."""
    package = Path(ernie_pipeline.__file__).parent
    copy = staging / package.name
    for file in (file for pattern in SERVED_CODE for file in sorted(package.glob(pattern))):
        target = copy / file.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return copy


def signature(max_new_tokens: int) -> "ModelSignature":
    """Questions or chat messages in, answers out, and how to generate; a negative seed means none.

    The columns are of any type: MLflow would make a text of a number, and tell of other mistakes in its own terms.
    The model checks them.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    params = [
        ParamSpec("max_new_tokens", "long", max_new_tokens),
        ParamSpec("temperature", "double", 0.0),
        ParamSpec("top_p", "double", 1.0),
        ParamSpec("seed", "long", -1),
    ]
    asked = [ColSpec(AnyType(), name, required=False) for name in ("question", "messages")]
    return ModelSignature(Schema(asked), Schema([ColSpec("string", "answer")]), ParamSchema(params))


def requirements() -> list[str]:
    """The installed versions of what the model runs on, without the local part ("+cpu") that no index serves."""
    pins = []
    for name in PINNED:
        try:
            pins.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:  # another backend may do without one of them
            continue
    return pins
