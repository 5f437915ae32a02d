"""What a caller hears whose request is not answered: a status and one sentence."""

import json

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED, INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

CODES = {
    400: INVALID_PARAMETER_VALUE,
    413: INVALID_PARAMETER_VALUE,
    415: INVALID_PARAMETER_VALUE,
    503: TEMPORARILY_UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}


class Refusal(MlflowException):  # type: ignore[misc]
    """A request that is not answered. `status`: one of `CODES`."""

    def __init__(self, sentence: str, status: int = 400):
        super().__init__(sentence, CODES[status])
        self.sentence, self.status = sentence, status

    def serialize_as_json(self) -> str:
        """The sentence alone: MLflow's scoring server puts the whole request in front of `message`."""
        return json.dumps({"error_code": self.error_code, "message": self.sentence})
