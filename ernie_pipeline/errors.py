"""The one error that a person is meant to read."""


class PipelineError(Exception):
    """Bad input or a failed check, told in one sentence: what is wrong, where (file, row, field), what to do.

    Every room raises it, so that a caller can tell a message for the user from a defect of the pipeline.
    """
