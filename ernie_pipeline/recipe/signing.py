"""With what a registered model is signed, and its signature is checked: paths and names, never a key itself."""

import os
from dataclasses import dataclass
from pathlib import Path

from ernie_pipeline.utils.errors import PipelineError

SIGSTORE = "sigstore"
SIGNING_KEY, VERIFYING_KEY = "ERNIE_PIPELINE_SIGNING_KEY", "ERNIE_PIPELINE_VERIFYING_KEY"
PASSWORD_FILE = "ERNIE_PIPELINE_SIGNING_PASSWORD_FILE"
IDENTITY, ISSUER = "ERNIE_PIPELINE_SIGSTORE_IDENTITY", "ERNIE_PIPELINE_SIGSTORE_ISSUER"
TOKEN_FILE, TRUST_CONFIG = "ERNIE_PIPELINE_SIGSTORE_TOKEN_FILE", "ERNIE_PIPELINE_SIGSTORE_TRUST_CONFIG"
VARIABLES = (SIGNING_KEY, VERIFYING_KEY, PASSWORD_FILE, IDENTITY, ISSUER, TOKEN_FILE, TRUST_CONFIG)


@dataclass(frozen=True)
class Signing:
    """`key`: the file of a private key, or "sigstore"; None: nothing is signed. `password_file`: of that key.

    `verifying_key`: the file of its public key. `identity`, `issuer`: who must have signed, by Sigstore.
    `token_file`: an identity token for Sigstore; without it the machine's own credentials are asked for one.
    `trust_config`: of a Sigstore of one's own.
    """

    key: str | None = None
    password_file: Path | None = None
    verifying_key: Path | None = None
    identity: str | None = None
    issuer: str | None = None
    token_file: Path | None = None
    trust_config: Path | None = None

    @classmethod
    def from_environment(cls) -> "Signing":
        """Those of ERNIE_PIPELINE_SIGNING_KEY, _SIGNING_PASSWORD_FILE, _VERIFYING_KEY, _SIGSTORE_IDENTITY,
        _SIGSTORE_ISSUER, _SIGSTORE_TOKEN_FILE and _SIGSTORE_TRUST_CONFIG.

        Raises `PipelineError` for half of an identity.
        """
        signing = cls(
            key=os.environ.get(SIGNING_KEY) or None,
            password_file=_path(PASSWORD_FILE),
            verifying_key=_path(VERIFYING_KEY),
            identity=os.environ.get(IDENTITY) or None,
            issuer=os.environ.get(ISSUER) or None,
            token_file=_path(TOKEN_FILE),
            trust_config=_path(TRUST_CONFIG),
        )
        if bool(signing.identity) != bool(signing.issuer):
            missing = ISSUER if signing.identity else IDENTITY
            raise PipelineError(f"{missing} is not set: who signs by Sigstore is known by {IDENTITY} and {ISSUER}")
        return signing

    @property
    def can_verify(self) -> bool:
        """Whether there is something by which a signature can be checked."""
        return self.verifying_key is not None or self.identity is not None


def is_said() -> bool:
    """Whether the environment says anything of signatures: else nothing is signed, and nothing can be wrong."""
    return any(map(os.environ.get, VARIABLES))


UNSIGNED = Signing()
"""Nothing is signed, and no signature checked."""


def _path(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None
