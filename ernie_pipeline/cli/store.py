"""`store list | verify | prune`: what is in the store, whether it is intact, and removing what nothing needs."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from ernie_pipeline.cli.output import FRESH, STALE, AsJson, print_answer
from ernie_pipeline.cli.plan import read_values, where_looked
from ernie_pipeline.orchestration.words import rows as count_of
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.elsewhere import lost_registration, registered_as
from ernie_pipeline.staleness.plan import asked_for, make_plan
from ernie_pipeline.staleness.side_by_side import held_besides, other_chains
from ernie_pipeline.staleness.stages import asked_base, asked_rows, open_chain
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.store.housekeeping import artifacts, kept_rows
from ernie_pipeline.store.housekeeping import quantized_bases as bases
from ernie_pipeline.store.housekeeping.artifacts import Contents, Damage, Entry, Pruned
from ernie_pipeline.store.housekeeping.kept_rows import KeptSet
from ernie_pipeline.store.housekeeping.quantized_bases import QUANTIZED_BASE, Bases
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.text_table import aligned, human_size

PRUNE = "ernie store prune"


def list_contents(as_json: AsJson = False) -> int:
    """Print what is in the store, and what it is needed for."""
    settings = Settings.from_environment()
    contents = _contents(settings)
    print_answer(as_json, {**read_values(settings), **contents.as_json()}, _told(settings, render_contents(contents)))
    return FRESH


def _told(settings: Settings, found: str) -> str:
    """What was `found`, below where it was looked for; `store` looks at a bucket's cache alone."""
    cache = f"\nlooked at: this machine's cache of it, {settings.store}" if settings.address else ""
    return f"{where_looked(settings)}{cache}\n\n{found}"


def verify(as_json: AsJson = False) -> int:
    """Read every file again, those in the registry too, and print what is damaged; exit status 3 when something is."""
    settings = Settings.from_environment()
    settings.check_places()
    store = ArtifactStore(settings.store)
    damaged, notes = artifacts.verify(store), list[str]()
    try:
        damaged += _lost_registrations(settings, store)
    except PipelineError as error:
        notes.append(f"{error}; so what is registered was not looked at")
    values = {**read_values(settings), "damaged": [asdict(damage) for damage in damaged], "notes": notes}
    found = render_damage(damaged, empty=not artifacts.anything(store))
    print_answer(as_json, values, _told(settings, "\n".join([found, *_notes(notes)])))
    return STALE if damaged else FRESH


def _lost_registrations(settings: Settings, store: ArtifactStore) -> list[Damage]:
    """Every intact artifact of registered_model whose registration no longer holds."""
    stage = "registered_model"
    found = {fingerprint: store.find(stage, fingerprint)[0] for fingerprint in store.fingerprints(stage)}
    lost = {
        fingerprint: lost_registration(settings, artifact, sha256_of)
        for fingerprint, artifact in found.items()
        if artifact
    }
    return [Damage(stage, fingerprint, reason) for fingerprint, reason in lost.items() if reason]


def prune(
    delete: Annotated[bool, typer.Option("--delete", help="and remove it")] = False, as_json: AsJson = False
) -> int:
    """Print what nothing needs and, with `--delete`, remove it."""
    settings = Settings.from_environment()
    if delete and settings.store.exists():
        settings.make_home()
    pruned = artifacts.prune(ArtifactStore(settings.store), _contents(settings), delete)
    print_answer(as_json, {**read_values(settings), **asdict(pruned)}, _told(settings, render_pruned(pruned)))
    return FRESH


def _contents(settings: Settings) -> Contents:
    chain = open_chain(settings, ask_registry=False)  # one that does not answer must not stop this
    others = other_chains(settings)
    held = held_besides(others, {"registered_model": partial(registered_as, settings)})
    quantized = bases.take_stock(settings.store, partial(asked_base, chain))
    asked_sets = [asked_rows(each) for each in (chain, *others.values())]
    every = None if None in asked_sets else {key for found in asked_sets for key in found or ()}
    rows = kept_rows.take_stock(settings.store, every)
    try:
        asked, unknown = asked_for(chain, make_plan(chain)), ""
    except PipelineError as error:  # a source that is away must not stop this either
        asked, unknown = dict.fromkeys(chain.stages, ""), str(error)
    return artifacts.take_stock(chain.store, asked, held, quantized, unknown, rows)


def render_contents(contents: Contents) -> str:
    """A line for each artifact, and what they come to; then the quantized base models likewise."""
    unfinished = [_unfinished_line(kept) for kept in contents.unfinished]
    if not contents.artifacts:
        none = "There is no artifact in the store."
        return "\n".join([none, *unfinished, *render_bases(contents.bases), *render_rows(contents.rows)])
    rows = [("asset", "fingerprint", "data version", "size", "built", "seconds", "kept because")]
    rows += [
        (
            entry.asset,
            entry.fingerprint,
            entry.data_version or "",
            human_size(entry.size),
            (entry.built or "")[:19].replace("T", " "),
            "" if entry.seconds is None else f"{entry.seconds:.1f}",
            ", ".join(entry.needed_for),
        )
        for entry in contents.artifacts
    ]
    idle = [entry.size for entry in contents.artifacts if not entry.needed_for]
    total = f"{count_of(len(rows) - 1, 'artifact')}, {human_size(sum(entry.size for entry in contents.artifacts))}."
    if idle:
        total += f' Nothing needs {len(idle)} of them, {human_size(sum(idle))}: "{PRUNE}".'
    below = [*unfinished, *_notes(contents.notes), *render_bases(contents.bases), *render_rows(contents.rows)]
    return "\n".join([aligned(rows), "", total, *below])


def render_rows(rows: Iterable[KeptSet]) -> list[str]:
    """A line for each set of kept answers."""
    return [f"{_set_name(kept)}, {', '.join(kept.needed_for) or 'needed by nothing'}" for kept in rows]


def _set_name(kept: KeptSet) -> str:
    of = ", ".join(f"{name} {_short(str(version))}" for name, version in kept.about.get("inputs", {}).items())
    return f"kept answers {kept.key}  {human_size(kept.size)}" + (f"  of {of}" if of else "")


def render_damage(damaged: list[Damage], empty: bool = False) -> str:
    """A line for each damaged artifact, and what is to be done. `empty`: there was nothing to look at."""
    if not damaged:
        return "There is nothing to verify." if empty else "Everything is intact."
    lines = [f"{d.asset} {d.fingerprint}: {d.reason}" for d in damaged]
    cures = {
        "A damaged artifact is built again by the next run that needs it.": any(
            d.asset != QUANTIZED_BASE for d in damaged
        ),
        "A damaged base model is quantized anew by the next process that uses it.": QUANTIZED_BASE
        in {d.asset for d in damaged},
    }
    return "\n".join([*lines, "", *(cure for cure, applies in cures.items() if applies)])


def render_pruned(pruned: Pruned) -> str:
    """A line for each thing that went or would go, and what that comes to."""
    lines = [f"{e.asset} {e.fingerprint}  {human_size(e.size)}" for e in pruned.artifacts]
    lines += [
        f"{a.asset} {a.fingerprint}, left half-written by a killed run  {human_size(a.size)}"
        for a in pruned.half_written
    ]
    lines += [_unfinished_line(kept) for kept in pruned.unfinished]
    lines += [f"{QUANTIZED_BASE} {base.key}  {human_size(base.size)}" for base in pruned.bases.quantized]
    lines += render_interrupted(pruned.bases)
    lines += [_set_name(kept) for kept in pruned.rows]
    if not lines:
        lines = ["There is nothing to remove."]
    elif pruned.deleted:
        lines += ["", f"Removed: {human_size(pruned.size)}."]
    else:
        lines += ["", f"Nothing was removed. These are {human_size(pruned.size)}; --delete removes them."]
    return "\n".join([*lines, *_notes(pruned.notes), *_notes(pruned.bases.notes)])


def _unfinished_line(kept: Entry) -> str:
    why = f", {', '.join(kept.needed_for)}" if kept.needed_for else ""
    return f"{kept.asset} {kept.fingerprint}, kept by an unfinished build{why}  {human_size(kept.size)}"


def _notes(notes: Iterable[str]) -> Iterator[str]:
    return (f"note: {note}" for note in notes)


def render_bases(bases: Bases) -> list[str]:
    """A line for each, and what they come to; none where there is none."""
    lines = []
    if bases.quantized:
        rows = [(QUANTIZED_BASE, "of version", "quantization", "size", "kept because")]
        rows += [
            (
                base.key,
                _short(base.version),
                ", ".join(f"{name} {str(value).lower()}" for name, value in (base.quantization or {}).items()),
                human_size(base.size),
                ", ".join(base.needed_for),
            )
            for base in bases.quantized
        ]
        idle = [base.size for base in bases.quantized if not base.needed_for]
        total = (
            f"Quantized base models: {len(bases.quantized)}, {human_size(sum(base.size for base in bases.quantized))}."
        )
        if idle:
            total += f' Nothing needs {len(idle)} of them, {human_size(sum(idle))}: "{PRUNE}".'
        lines += ["", aligned(rows), "", total]
    return [*lines, *render_interrupted(bases), *(f"note: {note}" for note in bases.notes)]


def render_interrupted(bases: Bases) -> list[str]:
    """A line for each quantization that was interrupted or is under way."""
    why = "left by an unfinished quantization"
    return [f"{QUANTIZED_BASE} {left.key}, {why}  {human_size(left.size)}" for left in bases.interrupted]


def _short(version: str | None) -> str:
    """Its kind and the first 16 digits: "sha256:0123456789abcdef"."""
    kind, _, digits = (version or "").partition(":")
    return f"{kind}:{digits[:16]}" if digits else kind
