"""A registered version on the hub: exported, loaded back, signed, committed, and fetched again."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.recipe.signing import UNSIGNED, Signing
from ernie_pipeline.registry.gate import decide
from ernie_pipeline.registry.provenance import predicate, read_provenance, wrong_digest
from ernie_pipeline.registry.publish.lost import what_is_lost
from ernie_pipeline.registry.publish.publish import Request, publish
from ernie_pipeline.registry.register import register
from ernie_pipeline.registry.registration import Registration, RegistrationRequest
from ernie_pipeline.registry.signing import check_signature
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline.registry.verification.version import find_version
from ernie_pipeline.store.sealed import list_files
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.registry.conftest import COMPARISON, SPEC, TARGETS
from ernie_pipeline_tests.registry.publish.hub import Hub

MEASURED = {"rows": 2, "accuracy": 0.5, "accuracy_low": 0.1, "accuracy_high": 0.9, "loss_completion": 1.0}
RUN = {"train_rows": 8, "eval_rows": 2, "steps": 4, "seconds": 1.5, "backend": "peft", "device": "cpu", "kept_step": 2}


@dataclass(frozen=True)
class Registered:
    """Two versions of a model, the first the champion."""

    champion: Registration
    challenger: Registration
    tracking_uri: str


@pytest.fixture(scope="module")
def registered_twice(make_request: Callable[..., RegistrationRequest]) -> Registered:
    """The second one, of the first one's files, had no gain, so it did not become champion."""
    made_from = predicate([], {"gate": {}}, "f00d", "a run")
    request = make_request(model_name="published", provenance=made_from)
    champion, refused = register(request), decide(request.gate, {**COMPARISON, "gain": 0.0}, request.candidate, None)
    with connected(request.tracking_uri) as client:
        first = client.get_model_version("published", champion.version)
        version = str(client.create_model_version("published", first.source, first.run_id, first.tags).version)
        client.set_registered_model_alias("published", "challenger", version)
    uri = f"models:/published/{version}"
    told = {"promoted": refused.promote, "reasons": refused.reasons, "aliases": ["challenger"]}
    return Registered(champion, replace(champion, version=version, model_uri=uri, **told), request.tracking_uri)


@pytest.fixture
def make(registered_twice: Registered, tmp_path: Path) -> Callable[..., Request]:
    """A request to publish a version, with whatever is to be different in the recipe's table."""
    files: dict[str, Any] = {
        "math_split/reports/profile.json": {"places": {"train": 8, "evaluation": 2}, "dropped": {"proof": 1}},
        "qlora_adapter/curve.json": [{"step": 2, "loss": 1.5, "loss_objective": 1.25}],
        "qlora_adapter/reports/run.json": RUN,
        "qlora_adapter/parameters.json": TARGETS,
        "base_evaluation/metrics.json": MEASURED,
        "adapter_evaluation/metrics.json": MEASURED,
    }
    for name, values in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(values))

    def made(registration: Registration, signing: Signing = UNSIGNED, **table: Any) -> Request:
        recipe = {
            "publish": {"repo": "me/model", **table},
            "lora": {"rank": 4, "alpha": 8},
            "training": {"backend": "peft"},
            "registry": {"model_name": "published"},
        }
        return Request(
            settings=Settings(tmp_path / "home", "demo", None, registered_twice.tracking_uri),
            recipe=parse_recipe(recipe, where="test"),
            versions={"base_model": SPEC.base.version, "math_split": "a split"},
            folders={name: tmp_path / name for name in {name.split("/")[0] for name in files}},
            built_with=[{"evaluation": {"max_new_tokens": 12}}],
            registration=asdict(registration),
            comparison=COMPARISON,
            source="demo",
            benchmarks=[],
            picture=b"\x89PNG",
            signing=signing,
        )

    return made


@pytest.fixture
def key(tmp_path: Path) -> Signing:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    pytest.importorskip("model_signing")
    made = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(made.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    public.write_bytes(made.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return Signing(key=str(private), verifying_key=public)


def out_of(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    return out


def test_the_champion_is_on_the_hub_as_it_was_written_and_signed(
    hub: Hub, registered_twice: Registered, make: Callable[..., Request], key: Signing, tmp_path: Path
) -> None:
    from huggingface_hub import snapshot_download

    out, heard = out_of(tmp_path), list[str]()
    request = make(registered_twice.champion, Signing(key=key.key))
    [check] = publish(request, out, heard.append)
    told = json.loads((out / "publication.json").read_text())
    assert (check.name, check.passed, told["published"], told["signed"]) == ("published", True, True, True)
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        "publication.json",
        "reports/README.md",
        "reports/training_curve.png",
    }
    fetched = Path(snapshot_download("me/model", revision=told["commit"], local_dir=tmp_path / "fetched"))
    files = {k: v for k, v in list_files(fetched).items() if not k.startswith((".gitattributes", ".cache"))}
    assert files == told["files"]
    assert {"adapter_model.safetensors", "LICENSE", "NOTICE", "CITATION.bib", "training_curve.png"} < {*files}
    statement = read_provenance(fetched)
    assert statement
    assert wrong_digest(fetched, files, statement) == ""
    by = check_signature(fetched, Signing(verifying_key=key.verifying_key), [".gitattributes", ".cache"])
    assert by == "by the key whose public half is key.pub"
    place = str(SPEC.base.checkpoint).encode()
    assert [path for path in fetched.rglob("*") if path.is_file() and place in path.read_bytes()] == []
    export = json.loads((fetched / "export.json").read_text())
    assert {name: files[name]["sha256"] for name in export["files"]} == export["files"]
    with connected(registered_twice.tracking_uri) as client:
        version = find_version(client, request.uri, "published")
    assert version.tags["published"] == told["url"] == f"{hub.url}/me/model/commit/{told['commit']}"
    assert what_is_lost(registered_twice.tracking_uri, told) == ""


def test_what_is_not_the_champion_is_not_published_until_it_is(
    hub: Hub, registered_twice: Registered, make: Callable[..., Request], tmp_path: Path
) -> None:
    out, (name, version) = out_of(tmp_path), ("published", registered_twice.challenger.version)
    [check] = publish(make(registered_twice.challenger), out, print)
    told = json.loads((out / "publication.json").read_text())
    assert (check.passed, check.blocking, told["published"]) == (False, False, False)
    assert told["why"].startswith(f"models:/published/{version} is not the champion, so it was not published. The gain")
    assert hub.log == []
    uri = registered_twice.tracking_uri
    assert what_is_lost(uri, told) == ""
    with connected(uri) as client:
        client.set_registered_model_alias(name, "champion", version)
        try:
            assert what_is_lost(uri, told) == f"version {version} of published is the champion now, and was not"
        finally:
            client.set_registered_model_alias(name, "champion", registered_twice.champion.version)


def test_a_version_whose_files_are_not_what_was_registered_is_not_published(
    hub: Hub, registered_twice: Registered, make: Callable[..., Request], key: Signing, tmp_path: Path
) -> None:
    request, out = make(registered_twice.champion), out_of(tmp_path)
    altered = {**request.registration, "files": {**request.registration["files"], "MLmodel": {"size": 1, "sha256": ""}}}
    with pytest.raises(PipelineError, match=r"is not published, since it is not what was registered .files.: MLmodel"):
        publish(replace(request, registration=altered), out, print)
    asked = replace(request, signing=Signing(verifying_key=key.verifying_key))
    with pytest.raises(PipelineError, match=r"not what was registered .signature.: it is not signed"):
        publish(asked, out, print)
    assert [*out.iterdir()] == []
    assert hub.writes() == []
    assert hub.repositories == {}
