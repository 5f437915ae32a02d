"""The lines of a JSONL file, plain or compressed, read as a stream; a file that was cut off is an error."""

import gzip
import json
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import zstandard

from ernie_pipeline.utils.errors import PipelineError

CHUNK_BYTES = 1 << 20
ZSTD_MAX_WINDOW = 1 << 31  # what `zstd --long=31` writes; the default refuses it
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OTHER_FORMATS = {  # a file's first bytes: what it is, and the ending of its name by which it would be read as that
    b"\x1f\x8b": ("gzip", ".jsonl.gz"),
    b"\x28\xb5\x2f\xfd": ("zstd", ".jsonl.zst"),
    b"PAR1": ("Parquet", ".parquet"),
}


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(1-based line number, raw line) of every line that is not blank.

    Raises `PipelineError` with file and line when the file cannot be read on, or ends inside a line, and when its
    content is of another format than its name says.
    """
    number = 0
    try:
        with _raw_lines(path) as lines:
            for number, raw in enumerate(lines, start=1):
                line = _first_line(path, raw) if number == 1 else raw
                if line.isspace() or not line:
                    continue
                if not line.endswith(b"\n") and not _is_json(line):  # only the last line can lack its end
                    raise PipelineError(f"{path} ends inside line {number}: it was cut off; fetch the file again")
                yield number, line
    except EOFError as error:
        raise PipelineError(
            f"{path} ends inside its compressed data, after line {number}: it was cut off; fetch the file again"
        ) from error
    except (OSError, zlib.error, zstandard.ZstdError) as error:
        raise PipelineError(f"{path} cannot be read after line {number} ({error}); fetch the file again") from error


def _first_line(path: Path, raw: bytes) -> bytes:
    for start, (name, ending) in OTHER_FORMATS.items():
        if raw.startswith(start):
            raise PipelineError(f"{path} holds {name} data, not lines of JSON; let its name end in {ending}")
    return raw.removeprefix(BYTE_ORDER_MARK)


def _raw_lines(path: Path) -> AbstractContextManager[Iterable[bytes]]:
    if path.suffix == ".zst":
        return closing(_split_lines(_zstd_chunks(path)))
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _zstd_chunks(path: Path) -> Iterator[bytes]:
    """Decompressed chunks of all frames. zstandard's own reader takes a cut-off file for a complete one."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW)
    frame, within_frame = decompressor.decompressobj(), False
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            while data:
                yield frame.decompress(data)
                data, within_frame = frame.unused_data, not frame.eof
                if frame.eof:
                    frame = decompressor.decompressobj()
    if within_frame:
        raise EOFError


def _split_lines(chunks: Iterable[bytes]) -> Generator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line, parse_int=float)
    except (ValueError, RecursionError):
        return False
    return True
