"""A folder that is signed, and what was done to it since."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe.signing import Signing
from ernie_pipeline.registry.lineage import Link
from ernie_pipeline.registry.provenance import (
    predicate,
    read_provenance,
    recorded_versions,
    write_provenance,
    wrong_digest,
)
from ernie_pipeline.registry.signing import SIGNATURE, BadSignatureError, check_signature, open_signer
from ernie_pipeline.registry.verification.files import check_files
from ernie_pipeline.registry.verification.step import Step
from ernie_pipeline.store.sealed import list_files
from ernie_pipeline.utils.errors import PipelineError

pytest.importorskip("model_signing", reason="needs ernie_pipeline[signing]")

SECRET = b"open sesame"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key pairs mine and other, mine again with a password, an RSA key, and a file that is no key."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    folder = tmp_path_factory.mktemp("keys")

    def write(name: str, key: Any, password: bytes | None = None) -> None:
        how = forms.BestAvailableEncryption(password) if password else forms.NoEncryption()
        (folder / f"{name}.pem").write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, how))
        public = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)

    mine = ec.generate_private_key(ec.SECP256R1())
    write("mine", mine)
    write("locked", mine, SECRET)
    write("other", ec.generate_private_key(ec.SECP384R1()))
    write("rsa", rsa.generate_private_key(65537, 2048))
    (folder / "none.pem").write_text("a secret that nobody may see")
    (folder / "password").write_bytes(SECRET + b"\n")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "code").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors\n")
    (folder / "code" / "served.py").write_text("print()\n")
    (folder / ".gitignore").write_text("*\n")
    return folder


def sign(model: Path, key: Path, **more: Path) -> None:
    signer = open_signer(Signing(key=str(key), **more))
    assert signer
    signer(model)


def test_a_signed_folder_holds_whoever_runs_it_since_and_model_signing_s_own_command_agrees(
    model: Path, keys: Path
) -> None:
    (model / ".gitignore").unlink()  # its own command passes over git's files, and so over what was added there
    sign(model, keys / "mine.pem")
    signing = Signing(verifying_key=keys / "mine.pub")
    assert "mine.pub" in check_signature(model, signing, [])
    command = ["verify", "key", str(model), "--signature", str(model / SIGNATURE), "--public_key", keys / "mine.pub"]
    own = subprocess.run([sys.executable, "-m", "model_signing", *command], capture_output=True, text=True)
    assert own.returncode == 0, own.stderr
    compiled = model / "code" / "__pycache__" / "served.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"compiled")
    assert check_signature(model, signing, ["code/__pycache__/served.cpython-311.pyc"])


@pytest.mark.parametrize("name", ["MLmodel", "code/served.py", ".gitignore"])
def test_an_altered_a_missing_and_an_added_file_are_named(model: Path, keys: Path, name: str) -> None:
    sign(model, keys / "mine.pem")
    signing, content = Signing(verifying_key=keys / "mine.pub"), (model / name).read_bytes()
    (model / name).write_bytes(content + b"#")
    with pytest.raises(BadSignatureError, match=f"^{name} is not as it was signed$"):
        check_signature(model, signing, [])
    (model / name).unlink()
    with pytest.raises(BadSignatureError, match=f"Missing files .*{name}"):
        check_signature(model, signing, [])
    (model / name).write_bytes(content)
    (model / "more").touch()
    with pytest.raises(BadSignatureError, match=r"Extra files .*more"):
        check_signature(model, signing, [])


def test_another_key_and_a_broken_signature_do_not_hold(model: Path, keys: Path) -> None:
    sign(model, keys / "mine.pem")
    with pytest.raises(BadSignatureError, match=r"^it was made with another key$"):
        check_signature(model, Signing(verifying_key=keys / "other.pub"), [])
    text = (model / SIGNATURE).read_text()
    start = text.index('"sig"') + 12
    for broken in (text[:-20], "{}", "", text[:start] + ("A" if text[start] != "A" else "B") + text[start + 1 :]):
        (model / SIGNATURE).write_text(broken)
        with pytest.raises(BadSignatureError):
            check_signature(model, Signing(verifying_key=keys / "mine.pub"), [])


def test_a_key_with_a_password_signs_when_its_file_is_named(model: Path, keys: Path) -> None:
    sign(model, keys / "locked.pem", password_file=keys / "password")
    assert check_signature(model, Signing(verifying_key=keys / "mine.pub"), [])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("nowhere.pem", r"SIGNING_KEY = .*nowhere\.pem' cannot be read \(No such file"),
        ("none.pem", r"SIGNING_KEY = .*none\.pem' cannot be used .* must be a private key in PEM"),
        ("mine.pub", "must be a private key in PEM"),
        ("rsa.pem", "curves P-256, P-384 or P-521"),
        ("locked.pem", "its password is in the file that ERNIE_PIPELINE_SIGNING_PASSWORD_FILE names"),
    ],
)
def test_a_key_that_cannot_sign_is_told_and_nothing_of_it_is(keys: Path, key: str, said: str) -> None:
    with pytest.raises(PipelineError, match=said) as told:
        open_signer(Signing(key=str(keys / key)))
    assert "secret" not in str(told.value)
    assert "BEGIN" not in str(told.value)
    assert told.value.__suppress_context__


@pytest.mark.parametrize("key", ["mine.pem", "rsa.pub", "nowhere.pub", "none.pem"])
def test_a_public_key_that_is_none_is_no_verdict(model: Path, keys: Path, key: str) -> None:
    sign(model, keys / "mine.pem")
    with pytest.raises(PipelineError, match="ERNIE_PIPELINE_VERIFYING_KEY = "):
        check_signature(model, Signing(verifying_key=keys / key), [])


def test_half_of_an_identity_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_SIGSTORE_IDENTITY", "me@example.org")
    with pytest.raises(PipelineError, match="ERNIE_PIPELINE_SIGSTORE_ISSUER is not set"):
        Signing.from_environment()


def signature_step(model: Path, signing: Signing) -> Step:
    return next(step for step in check_files(model, None, signing)[0] if step.name == "signature")


def test_unsigned_is_told_as_such_and_fails_where_a_signature_is_asked_for(model: Path, keys: Path) -> None:
    step = signature_step(model, Signing())
    assert (step.outcome, step.asked) == ("unchecked", False)
    assert "it is not signed" in step.said
    assert signature_step(model, Signing(verifying_key=keys / "mine.pub")).outcome == "differs"
    sign(model, keys / "mine.pem")
    listed = list_files(model)
    assert signature_step(model, Signing()).outcome == "unchecked"
    assert signature_step(model, Signing(verifying_key=keys / "mine.pub")).outcome == "passed"
    assert signature_step(model, Signing(verifying_key=keys / "nowhere.pub")).asked
    (model / SIGNATURE).unlink()
    stripped = next(step for step in check_files(model, listed, Signing())[0] if step.name == "signature")
    assert (stripped.outcome, stripped.said) == ("differs", "it was signed, and model.sig is missing")


def test_the_provenance_is_an_in_toto_statement_that_other_tools_read(model: Path) -> None:
    from google.protobuf import json_format
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Message

    made = {"recipe": {"lora": {"rank": 4}}, "libraries": {"torch": "2.13.0"}, "modules": {"a": "1"}}
    made |= {"fingerprint": "f00d", "built": "2026-11-28T00:00:00+00:00", "inputs": {}}
    links = [
        Link("qlora_adapter", "da7a", ["registered_model"], made),
        Link("nemotron_source", "commit:" + "c" * 40, ["raw_nemotron"]),
    ]
    write_provenance(model, predicate(links, {"gate": {"min_gain": 0.0}}, "beef", "a run"))
    message = json_format.Parse((model / "provenance.json").read_text(), Message())
    Statement.copy_from_pb(message).validate()
    statement = read_provenance(model)
    assert statement
    assert recorded_versions(statement) == {"qlora_adapter": "da7a", "nemotron_source": "commit:" + "c" * 40}
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert dependencies[1]["digest"] == {"gitCommit": "c" * 40}
    assert dependencies[2] == {"name": "torch", "uri": "pkg:pypi/torch@2.13.0"}
    assert wrong_digest(model, list_files(model), statement) == ""
    (model / "MLmodel").write_text("other\n")
    assert wrong_digest(model, list_files(model), statement) == "MLmodel"
    (model / "provenance.json").write_text('{"_type": "something else"}')
    with pytest.raises(ValueError, match="not readable"):
        read_provenance(model)
