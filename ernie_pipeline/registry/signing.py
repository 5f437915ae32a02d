"""The signature of a registered model's folder, by OpenSSF model-signing: with a key pair (elliptic curve) or Sigstore.

The signature, `model.sig`, is a Sigstore bundle: a DSSE envelope around an in-toto statement that lists every other
file of the folder with its SHA-256, provenance.json among them, which is thereby signed too. `model_signing verify`,
its own command line, verifies it as well. The statement of provenance has no envelope of its own: what model-signing
offers to its callers signs folders, not statements.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_pipeline.recipe.signing import (
    PASSWORD_FILE,
    SIGNING_KEY,
    SIGSTORE,
    TOKEN_FILE,
    TRUST_CONFIG,
    VERIFYING_KEY,
    Signing,
)
from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    from model_signing.signing import Config as Signer
    from model_signing.verifying import Config as Verifier

SIGNATURE = "model.sig"
LINK = re.compile("Cannot use '(.+?)' because it is a symlink")
HASH_MISMATCH = re.compile("Hash mismatch for '(.+?)': Expected")
INSTALL = 'install "ernie_pipeline[signing]"'

Sign = Callable[[Path], None]
"""Write the signature of a folder into it."""


class BadSignatureError(Exception):
    """A signature that does not hold; the text is a clause that says why."""


def open_signer(signing: Signing) -> Sign | None:
    """What signs a folder, its key read; None where nothing is to be signed.

    Raises `PipelineError`, in which nothing of the key stands, for a key that is not there or cannot be used.
    """
    if signing.key is None:
        return None
    config = _by_sigstore(signing) if signing.key == SIGSTORE else _by_key(Path(signing.key).expanduser(), signing)

    def sign(folder: Path) -> None:
        with _refused("signing the model failed"):
            config.set_hashing_config(_hashing([SIGNATURE])).sign(folder, folder / SIGNATURE)

    return sign


def check_signer(signing: Signing) -> None:
    """Before anything is spent on a model: raise `PipelineError` where `open_signer` would, without asking anybody.

    Of Sigstore this looks at the files alone.
    """
    if signing.key != SIGSTORE:
        open_signer(signing)
        return
    _library()
    for file, variable in ((signing.token_file, TOKEN_FILE), (signing.trust_config, TRUST_CONFIG)):
        if file:
            _content(file, variable)


def check_signature(folder: Path, signing: Signing, later: list[str]) -> str:
    """Hash the folder's files and check its signature, which is there; by whom it is, in words.

    `later`: paths of files that came into the folder after it was signed, and are no part of it.
    Raises `BadSignatureError` for one that does not hold, and `PipelineError` for a public key that cannot be used.
    """
    config, whose = _verifier(signing)
    try:
        config.set_hashing_config(_hashing([SIGNATURE, *later])).verify(folder, folder / SIGNATURE)
    except Exception as error:  # model-signing's, cryptography's, sigstore's, and those of reading broken JSON
        raise BadSignatureError(_why(error)) from error
    return whose


def _by_key(key: Path, signing: Signing) -> "Signer":
    password = _content(signing.password_file, PASSWORD_FILE).strip() if signing.password_file else None
    content = _content(key, SIGNING_KEY)
    signer: Signer = _library().signing.Config()
    try:
        signer.use_elliptic_key_signer(private_key=key, password=password)  # bytes, whatever its hint says
    except Exception as error:
        encrypted = b"ENCRYPTED" in content
        cure = f"its password is in the file that {PASSWORD_FILE} names" if encrypted else "make one with openssl"
        wanted = "a private key in PEM of the curves P-256, P-384 or P-521"
        # "from None": nothing of what a parser says of a key goes into a log
        raise PipelineError(
            f"{SIGNING_KEY} = {str(key)!r} cannot be used ({type(error).__name__}): it must be {wanted}; {cure}"
        ) from None
    return signer


def _by_sigstore(signing: Signing) -> "Signer":
    token = _content(signing.token_file, TOKEN_FILE).decode().strip() if signing.token_file else None
    signer: Signer = _library().signing.Config()
    with _refused("Sigstore cannot be used for signing"):
        signer.use_sigstore_signer(
            identity_token=token, use_ambient_credentials=token is None, trust_config=signing.trust_config
        )
    return signer


def _verifier(signing: Signing) -> "tuple[Verifier, str]":
    """What checks, and by whom the signature is then."""
    config = _library().verifying.Config()
    if signing.verifying_key is not None:
        _content(signing.verifying_key, VERIFYING_KEY)
        try:
            config.use_elliptic_key_verifier(public_key=signing.verifying_key)
        except Exception as error:
            raise PipelineError(
                f"{VERIFYING_KEY} = {str(signing.verifying_key)!r} cannot be used ({type(error).__name__}): it must be "
                "the public key, in PEM, of the curves P-256, P-384 or P-521"
            ) from None
        return config, f"by the key whose public half is {signing.verifying_key.name}"
    with _refused("Sigstore cannot be used for verifying"):
        config.use_sigstore_verifier(
            identity=signing.identity, oidc_issuer=signing.issuer, trust_config=signing.trust_config
        )
    return config, f"by {signing.identity}, as {signing.issuer} says"


def _hashing(left_out: list[str]) -> Any:
    return _library().hashing.Config().set_ignored_paths(paths=left_out, ignore_git_paths=False)


def _library() -> Any:
    """The package model_signing. Raises `PipelineError` where it is not installed."""
    try:
        import model_signing
    except ImportError as error:
        missing = f"the Python module {error.name or 'model_signing'}, which is not installed here"
        raise PipelineError(f"signing, and checking signatures, needs {missing}; {INSTALL}") from None
    logging.getLogger("model_signing").setLevel(logging.ERROR)
    return model_signing


def _content(file: Path, variable: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise PipelineError(
            f"{variable} = {str(file)!r} cannot be read ({error.strerror}); set it to a file that can"
        ) from None


@contextmanager
def _refused(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise PipelineError(f"{what}: {_line(error)}") from None


def _why(error: Exception) -> str:
    line = _line(error)
    if "Key mismatch" in line:
        return "it was made with another key"
    if names := HASH_MISMATCH.findall(line):
        return f"{', '.join(names)} {'is not as it was' if len(names) == 1 else 'are not as they were'} signed"
    if link := LINK.search(line):
        return f"{link[1]} is a link, of which there was none when it was signed"
    if line.startswith("Signature mismatch: "):
        return line.removeprefix("Signature mismatch: ").strip("[]\"'")
    if type(error).__name__ == "InvalidSignature":
        return "what it signs was altered, or it was made with another key"
    return f"{SIGNATURE} cannot be read as one ({line})"


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:500]
