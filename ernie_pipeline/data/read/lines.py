"""The rows of a JSON file, plain or compressed: its lines, read as a stream, or the members of one array.

Lines may end in LF, CRLF or CR, and the text be UTF-8 or UTF-16. A file that was cut off is an error.
"""

import gzip
import json
import re
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_LE, getincrementaldecoder
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import msgspec
import zstandard

from ernie_pipeline.utils.errors import PipelineError

CHUNK_BYTES = 1 << 20
ZSTD_MAX_WINDOW = 1 << 31  # what `zstd --long=31` writes; the default refuses it
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OTHER_FORMATS = {  # a file's first bytes: what it is, and the ending of its name by which it would be read as that
    b"\x1f\x8b": ("gzip", ".jsonl.gz"),
    b"\x28\xb5\x2f\xfd": ("zstd", ".jsonl.zst"),
    b"PAR1": ("Parquet", ".parquet"),
    b"ARROW1": ("Arrow", ".arrow"),
}
ARCHIVES = {b"PK\x03\x04": "a zip file or an Excel workbook", b"\xd0\xcf\x11\xe0": "an old Excel workbook"}
UTF_16 = {  # with a byte order mark, or where JSON begins, every other byte of which is 0
    BOM_UTF16_LE: "utf-16",
    BOM_UTF16_BE: "utf-16",
    **{start.encode("utf-16-le"): "utf-16-le" for start in "{["},
    **{start.encode("utf-16-be"): "utf-16-be" for start in "{["},
}
_ARRAY = re.compile(rb"\s*\[\s*(?:\{|\]\s*$|$)")
_ENDS_IN_CR = re.compile(rb"[^\r\n]*\r[^\n]")
_OBJECT_OVER_LINES = re.compile(rb"\s*\{[ \t]*[\r\n]")


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(1-based line number, raw line) of every line that is not blank; of an array, (number, text) of each member.

    An array is read whole, everything else as a stream. Raises `PipelineError` with file and line when the file cannot
    be read on, or ends inside a line or the array, and when its content is of another format than its name says.
    """
    number = 0
    try:
        head, encoding = _head(path)
        if _ARRAY.match(head):
            yield from _members(path)
            return
        with _raw_lines(path, head, encoding) as lines:
            for number, raw in enumerate(lines, start=1):
                line = raw.removeprefix(BYTE_ORDER_MARK) if number == 1 else raw
                if line.isspace() or not line:
                    continue
                if not line.endswith(b"\n") and not _is_json(line):  # only the last line can lack its end
                    raise PipelineError(f"{path} ends inside line {number}: it was cut off; fetch the file again")
                yield number, line
    except EOFError as error:
        raise PipelineError(
            f"{path} ends inside its compressed data, after line {number}: it was cut off; fetch the file again"
        ) from error
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{path} is UTF-16 and cannot be read after line {number} ({error.reason}); write it again, as UTF-8"
        ) from error
    except (OSError, zlib.error, zstandard.ZstdError) as error:
        raise PipelineError(f"{path} cannot be read after line {number} ({error}); fetch the file again") from error


def is_array(path: Path) -> bool:
    """Whether a file's rows are the members of one array, and its numbers not those of lines."""
    return bool(_ARRAY.match(_head(path)[0]))


def check_format(path: Path, head: bytes, wanted: str) -> None:
    """Raise `PipelineError` where the file's first bytes are those of another format than the `wanted` one."""
    for start, (name, ending) in OTHER_FORMATS.items():
        if head.startswith(start):
            raise PipelineError(f"{path} holds {name} data, not {wanted}; let its name end in {ending}")
    for start, name in ARCHIVES.items():
        if head.startswith(start):
            raise PipelineError(f"{path} is {name}, not {wanted}; save it as CSV, under a name that ends in .csv")


def _head(path: Path) -> tuple[bytes, str | None]:
    """(the file's first bytes, as UTF-8 without a byte order mark; its encoding, where that is another). Raises
    `PipelineError` for another format."""
    with closing(_chunks(path)) as chunks:
        head = next(chunks, b"")
    check_format(path, head, "lines of JSON")
    if head.startswith(BOM_UTF32_LE):
        raise PipelineError(f"{path} is UTF-32; write it again, as UTF-8")
    encoding = _utf_16(head)
    if encoding:
        head = getincrementaldecoder(encoding)().decode(head).encode("utf-8", "surrogatepass")
    head = head.removeprefix(BYTE_ORDER_MARK)
    if _OBJECT_OVER_LINES.match(head):
        raise PipelineError(
            f"{path} is an object over several lines, not rows; write each row on a line of its own, or all rows as "
            "one array"
        )
    return head, encoding


def _utf_16(head: bytes) -> str | None:
    return next((name for start, name in UTF_16.items() if head.startswith(start)), None)


def _raw_lines(path: Path, head: bytes, encoding: str | None) -> AbstractContextManager[Iterable[bytes]]:
    """The lines, each with the LF at its end; `head` says how the first one ends."""
    if _ENDS_IN_CR.match(head):
        return closing(_split_lines(chunk.replace(b"\r", b"\n") for chunk in utf_8_chunks(path)))
    if encoding or path.suffix == ".zst":
        return closing(_split_lines(utf_8_chunks(path)))
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _members(path: Path) -> Iterator[tuple[int, bytes]]:
    data = b"".join(utf_8_chunks(path)).removeprefix(BYTE_ORDER_MARK)
    try:
        members = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError) as error:
        if "truncated" in str(error):
            raise PipelineError(
                f"{path} ends inside its array of rows: it was cut off; fetch the file again"
            ) from error
        raise PipelineError(
            f"{path} is an array of rows that cannot be read as JSON ({error}); correct it, or write each row on a line"
        ) from error
    yield from ((number, bytes(member) + b"\n") for number, member in enumerate(members, start=1))


def utf_8_chunks(path: Path) -> Generator[bytes]:
    """The file's content, decompressed, as UTF-8, in pieces."""
    decoder = None
    for number, chunk in enumerate(_chunks(path)):
        if number == 0 and (encoding := _utf_16(chunk)):
            decoder = getincrementaldecoder(encoding)()
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass") if decoder else chunk
    if decoder:
        yield decoder.decode(b"", True).encode()


def _chunks(path: Path) -> Generator[bytes]:
    """The file's content, decompressed, in pieces."""
    if path.suffix == ".zst":
        yield from _zstd_chunks(path)
        return
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while chunk := file.read1(CHUNK_BYTES):  # of compressed data that are cut off, what there is
            yield chunk


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
