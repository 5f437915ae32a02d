"""An export: written aside, loaded back and compared, then published in one rename; or nothing is left of it."""

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.export.readme import Report, Tell, render
from ernie_pipeline.registry.export.source import Source, find_source
from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.store.sealed import discard, same_rights, temporary_place
from ernie_pipeline.utils.errors import PipelineError, is_disk_full

if TYPE_CHECKING:  # they import torch, which takes seconds that nobody waits for whose model is not there
    from ernie_pipeline.registry.export.material import Material
    from ernie_pipeline.registry.export.merge import Onto

Form = Literal["peft", "unsloth", "merged", "gguf"]
MANIFEST = "export.json"


@dataclass(frozen=True)
class Asked:
    """What is exported: `model` as `find_source` has it, None for the champion; `type`: of a GGUF file's matrices."""

    form: Form
    out: Path
    model: str | None = None
    onto: "Onto" = "quantized"
    type: str = "bf16"


def export(settings: Settings, asked: Asked, tell: Tell = lambda line: None) -> Report:
    """Write the export; `tell` hears what is being done. Raises `PipelineError`, and then there is no `asked.out`."""
    _check_place(settings, asked.out)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ernie_pipeline_")))
        source = find_source(settings, asked.model, scratch)
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        return export_source(source, asked, scratch, tell)


def export_source(source: Source, asked: Asked, scratch: Path, tell: Tell) -> Report:
    """The same of a source that is known. `scratch`: a folder for what is not published."""
    from ernie_pipeline.registry.export.material import make_material

    with ExitStack() as stack:
        material = make_material(source, stack)
        folder = temporary_place(asked.out.absolute())
        stack.callback(discard, folder)
        try:
            folder.mkdir(parents=True)
            tell(f"writing {source.name}: {source.checked}")
            report = _WRITERS[asked.form](material, asked, folder, scratch, tell)
            _seal(material, asked, report, folder)
            same_rights(folder / "README.md", [file for file in folder.iterdir() if file.is_file()])
            if _stands(asked.out):
                raise _in_the_way(asked.out)
            folder.rename(asked.out.absolute())
        except Exception as error:
            if is_disk_full(error):
                place = asked.out.absolute().parent
                raise PipelineError(
                    f"the disk that holds {place} (or {scratch.parent}) is full; make room or export to another: "
                    "nothing half-written is left"
                ) from error
            if isinstance(error, OSError):
                why = error.strerror or error
                raise PipelineError(f"{asked.out} cannot be written ({why}); name a folder that can") from error
            raise
    return report


def _check_place(settings: Settings, out: Path) -> None:
    if _stands(out):
        raise _in_the_way(out)
    home, place = settings.home.resolve(), out.absolute().resolve()
    if place.is_relative_to(home):
        raise PipelineError(
            f"{out} is inside the home {settings.home}, where the pipeline keeps and removes folders of its own; "
            "export to a place outside"
        )


def _stands(out: Path) -> bool:
    return out.exists() or out.is_symlink()


def _in_the_way(out: Path) -> PipelineError:
    return PipelineError(f"{out} exists already; remove it or name another folder: an export replaces nothing")


def _write_adapter(material: "Material", asked: Asked, folder: Path, scratch: Path, tell: Tell) -> Report:
    from ernie_pipeline.registry.export.checks import check_adapter_form
    from ernie_pipeline.registry.export.peft_form import write_peft

    spec, form = material.source.spec, asked.form
    assert form in ("peft", "unsloth")
    loaded = folder
    if form == "unsloth":  # PEFT loads the same tensors with its own configuration
        loaded = scratch / "peft"
        loaded.mkdir()
        write_peft(material.adapter, spec.base, material.plan.experts, loaded, "peft")
    write_peft(material.adapter, spec.base, material.plan.experts, folder, form)
    tell("loading it back in a process without this package")
    return check_adapter_form(material, loaded, folder if form == "unsloth" else None, scratch)


def _write_merged(material: "Material", asked: Asked, folder: Path, scratch: Path, tell: Tell) -> Report:
    from ernie_pipeline.registry.export.checks import check_merged
    from ernie_pipeline.registry.export.merged_form import write_merged

    write_merged(material.plan, material.base, material.adapter, material.source.spec, asked.onto, folder)
    tell("loading it back in a process without this package")
    return check_merged(material, asked.onto, folder, scratch)


def _write_gguf(material: "Material", asked: Asked, folder: Path, scratch: Path, tell: Tell) -> Report:
    from ernie_pipeline.registry.export.gguf_form import check_gguf, write_gguf

    file = folder / f"model-{asked.type}.gguf"
    write_gguf(material, asked.onto, asked.type, file)
    tell("reading it back")
    return check_gguf(material, asked.onto, asked.type, file)


_WRITERS: dict[str, Callable[["Material", Asked, Path, Path, Tell], Report]] = {
    "peft": _write_adapter,
    "unsloth": _write_adapter,
    "merged": _write_merged,
    "gguf": _write_gguf,
}


def _seal(material: "Material", asked: Asked, report: Report, folder: Path) -> None:
    """README.md, and export.json: what it was made of, what was found, and the hash of each file."""
    source = material.source
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    gguf = next((name for name in files if name.endswith(".gguf")), "")
    (folder / "README.md").write_text(render(asked.form, source, report, gguf), encoding="utf-8")
    values: dict[str, Any] = {
        "form": asked.form,
        "model": source.name,
        "base": source.spec.base.model_dump(mode="json"),
        "quantization": source.spec.quantization.model_dump(mode="json"),
        "adapter_sha256": sha256_of(material.adapter.folder / "adapter_model.safetensors"),
        "onto": asked.onto if asked.form in ("merged", "gguf") else None,
        "loaded_back": report.loaded,
        "checked": dict(report.figures),
        "libraries": {name: version(name) for name in ("torch", "transformers", "peft", "safetensors")},
        "files": {name: sha256_of(folder / name) for name in files},
    }
    (folder / MANIFEST).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
