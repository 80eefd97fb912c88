"""Objects in S3 and in stores that speak its protocol: written whole or not at all, read by ranges.

Beam's own S3 file system is not used. It opens a client (and connections) for every call, asks three times to write the
smallest object, cannot write an empty one, makes half an object visible when its writer fails, leaves its uploads
behind, and reads 16 MiB where one picture is wanted. What its `--s3_...` options say is honoured here.
"""

import contextlib
import errno
import fnmatch
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, BinaryIO, cast

from mmc4_builder.object_reader import ObjectReader, Part
from mmc4_builder.storage_errors import StorageError

ATTEMPTS = 10  # of a request, about a minute and a half in all; AWS_MAX_ATTEMPTS says otherwise
READS = 6  # of a body that breaks off: botocore asks again only for the answer's head
PART = 64 << 20  # bytes that are written by one request; a larger object is uploaded in parts of it
GLOB = "*?["
UNSUPPORTED = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})
DENIED = frozenset({"AccessDenied", "403", "Forbidden"})
REMEDIES = (  # what an error's code or text holds, the remedy
    ("NoSuchBucket", "create the bucket, or name another one"),
    ("Credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, here and on the workers"),
    ("access key", "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, here and on the workers"),
    ("Signature", "check AWS_SECRET_ACCESS_KEY, the region, and the clock, here and on the workers"),
    ("Token", "renew the credentials"),
    ("AccessDenied", "the credentials must allow to get, put, delete and list there"),
    ("Forbidden", "the credentials must allow to get, put, delete and list there"),
    ("Quota", "make room"),
    ("", "look whether the store can be reached (AWS_ENDPOINT_URL) and is well"),
)


class PreconditionError(StorageError):
    """The object is not, or not any more, the one that was expected."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Which store, and who asks. None: what boto3 finds in the environment, a profile, or the machine's role."""

    s3_endpoint_url: str | None = None
    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = field(default=None, repr=False)
    s3_session_token: str | None = field(default=None, repr=False)
    s3_region_name: str | None = None
    s3_api_version: str | None = None
    s3_verify: str | None = None
    s3_disable_ssl: bool = False


def size(path: str) -> int | None:
    """Bytes of the object, or None where there is none: one request."""
    try:
        return int(_call("head_object", path)["ContentLength"])
    except FileNotFoundError:
        return None


def open_read(path: str) -> BinaryIO:
    """A seekable stream. The store is not asked before it is read; FileNotFoundError then."""
    _client(_settings())  # a client that is not installed is said at once
    return cast(BinaryIO, ObjectReader(path, get))


def read(path: str) -> bytes:
    """The whole object: one request. FileNotFoundError where there is none."""
    return get(path, "").data


def look(path: str) -> tuple[bytes, str] | None:
    """A small object with its version, None where there is none."""
    try:
        part = get(path, "")
    except FileNotFoundError:
        return None
    return part.data, part.version


def get(path: str, span: str, version: str = "") -> Part:
    """A part of an object, by an HTTP range such as `bytes=0-99` or `bytes=-100`; all of it without one.

    FileNotFoundError, StorageError; PreconditionError where the object is not of the `version` asked for.
    """
    arguments = ({"Range": span} if span else {}) | ({"IfMatch": version} if version else {})
    for wait in (*(0.1 * 2**n for n in range(READS - 1)), None):
        try:
            answer = _call("get_object", path, **arguments)
            data = answer["Body"].read()
            break
        except _OutOfRange:
            return Part(b"", size(path) or 0, "")
        except _broken_off() as error:  # in its body, or in the body of an error
            if wait is None:
                raise _translated("get_object", path, error) from error
            time.sleep(wait)
    _, _, whole = answer.get("ContentRange", "").rpartition("/")
    return Part(data, int(whole) if whole.isdigit() else len(data), answer["ETag"])


def put(path: str, stream: BinaryIO, length: int) -> None:
    """Write an object, which is visible when all of it is there; one request up to 64 MiB."""
    if length <= PART:
        _call("put_object", path, Body=stream.read() if length < 1 << 20 else stream)
        return
    from boto3.s3.transfer import TransferConfig

    # Aborts the upload where one of its parts fails. No threads: workers are many already, and memory is short.
    config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, use_threads=False)
    _call("upload_fileobj", path, Fileobj=stream, Config=config)


def put_if(path: str, content: bytes, version: str | None) -> bool:
    """Write a small object where none is (version None), or in the place of that very version; whether it was.

    A store that knows no conditional writes gets an ordinary one.
    """
    condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
    try:
        _call("put_object", path, Body=content, **condition)
    except (PreconditionError, FileNotFoundError):
        return False
    except StorageError as error:
        if _code(error.__cause__) not in UNSUPPORTED:
            raise
        _call("put_object", path, Body=content)
    return True


def remove(path: str) -> None:
    """Delete an object; one that is not there is no error."""
    with contextlib.suppress(FileNotFoundError):
        _call("delete_object", path)


def has_folder(folder: str) -> bool:
    """Whether there is any object below a prefix."""
    return any(True for _ in _list(f"{folder.rstrip('/')}/", MaxKeys=1))


def names(folder: str) -> list[str]:
    """Names of the objects directly below a prefix, sorted; a thousand a request."""
    prefix = f"{folder.rstrip('/')}/"
    return sorted(path.removeprefix(prefix) for path in _list(prefix, Delimiter="/") if path != prefix)


def walk(root: str) -> list[str]:
    """Every object below a prefix, relative to it, in order."""
    prefix = f"{root.rstrip('/')}/"
    return sorted(path.removeprefix(prefix) for path in _list(prefix) if path != prefix)


def match(pattern: str) -> list[str]:
    """Objects that a glob names: `*` and `?` stay within one folder, `**` does not."""
    fixed = re.split(rf"[{re.escape(GLOB)}]", pattern, maxsplit=1)[0]
    pieces = re.split(r"(\*\*|\*|\?|\[[^\]]+\])", pattern)
    signs = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    wanted = re.compile(
        "".join(signs.get(p, fnmatch.translate(p)[4:-3] if p[:1] == "[" else re.escape(p)) for p in pieces)
    )
    return sorted(path for path in _list(fixed) if wanted.fullmatch(path))


def sweep(root: str) -> int:
    """Abort uploads in parts below a prefix that killed workers left; how many."""
    bucket, prefix = _parse(f"{root.rstrip('/')}/")
    try:
        left = _call("list_multipart_uploads", root, Key=None, Bucket=bucket, Prefix=prefix).get("Uploads", [])
        for upload in left:
            with contextlib.suppress(FileNotFoundError):
                _call("abort_multipart_upload", f"s3://{bucket}/{upload['Key']}", UploadId=upload["UploadId"])
    except StorageError as error:
        if _code(error.__cause__) in DENIED | UNSUPPORTED:
            return 0  # housekeeping only: the bucket's lifecycle rule does the same
        raise
    return len(left)


def _list(prefix: str, **arguments: Any) -> Iterator[str]:
    bucket, key = _parse(prefix)
    more: dict[str, Any] = {}
    while True:
        found = _call("list_objects_v2", prefix, Key=None, Prefix=key, **arguments, **more)
        yield from (f"s3://{bucket}/{item['Key']}" for item in found.get("Contents", []))
        if not found.get("IsTruncated"):
            return
        more = {"ContinuationToken": found["NextContinuationToken"]}


def _parse(path: str) -> tuple[str, str]:
    bucket, _, key = path.removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{path!r} names no bucket: write s3://BUCKET/PREFIX")
    return bucket, key


class _OutOfRange(Exception):
    """The object ends before the range begins."""


def _call(operation: str, path: str, **arguments: Any) -> Any:
    """One request for an object (or, with Key=None, for its bucket), tried again while that may help."""
    bucket, key = _parse(path)
    named = {"Bucket": bucket, "Key": key, **arguments}
    request = getattr(_client(_settings()), operation)
    try:
        return request(**{name: value for name, value in named.items() if value is not None})
    except _client_errors() as error:
        raise _translated(operation, path, error) from error


def _settings() -> Settings:
    """Of Beam's options, where there are any: a worker has them from its engine, the launcher from `use`."""
    beam = sys.modules.get("apache_beam.io.filesystems")
    options = beam and beam.FileSystems._pipeline_options
    if not options:
        return Settings()
    from apache_beam.options.pipeline_options import S3Options

    said = options.view_as(S3Options)
    return Settings(**{setting.name: getattr(said, setting.name) for setting in fields(Settings)})


@cache
def _client(settings: Settings) -> Any:
    """One client for a process: its connections are used again, from all threads."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise StorageError(f"no client for s3://: pip install 'mmc4-build[aws]' ({error})") from error
    mode, attempts = os.environ.get("AWS_RETRY_MODE", "standard"), int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))
    config = Config(
        retries={"mode": mode, "total_max_attempts": attempts},
        max_pool_connections=32,
        connect_timeout=10,
        tcp_keepalive=True,
    )
    given = {name.removeprefix("s3_"): value for name, value in asdict(settings).items()}
    verify, plain = given.pop("verify"), given.pop("disable_ssl")
    for name in ("access_key_id", "secret_access_key", "session_token"):
        given[f"aws_{name}"] = given.pop(name)
    if verify is not None and verify.lower() in ("false", "0", "no"):
        verify = False
    return boto3.session.Session().client("s3", config=config, use_ssl=not plain, verify=verify, **given)


@cache
def _client_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError


@cache
def _broken_off() -> tuple[type[Exception], ...]:
    from urllib3.exceptions import HTTPError

    return *_client_errors(), HTTPError


def _code(error: BaseException | None) -> str:
    answer = getattr(error, "response", None)  # None too where a connection broke
    return str(answer.get("Error", {}).get("Code", "")) if answer else ""


def _translated(operation: str, path: str, error: Exception) -> Exception:
    code = _code(error)
    if code in ("404", "NoSuchKey", "NotFound", "NoSuchUpload"):
        return FileNotFoundError(errno.ENOENT, "no such object", path)
    if code in ("416", "InvalidRange"):
        return _OutOfRange()
    said = " ".join(f"{type(error).__name__}: {error}".split())
    if code in ("412", "PreconditionFailed", "409", "ConditionalRequestConflict"):
        return PreconditionError(f"{path} was changed by somebody else ({said}); run the same command again")
    remedy = next(remedy for part, remedy in REMEDIES if part.lower() in said.lower())
    verb = "read" if operation in ("get_object", "head_object", "list_objects_v2") else "write"
    return StorageError(
        f"cannot {verb} {path} ({said}). What was committed before is safe: {remedy}, then run the same command again"
    )
