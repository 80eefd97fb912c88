"""What to do about an output that is full, read-only, or gone: a remedy for what the operating system says of it."""

import errno
import os
import re

AGAIN = "then run the same command again: what was committed is kept, and what is missing is made again"
GONE = f"a part of the output was deleted or unmounted while the build ran. Mount it again if it was, {AGAIN}"
FULL = f"make room, {AGAIN}"
REFUSED = f"the output cannot be written to. Mount it writable, fix the permission, or choose another --output; {AGAIN}"
LOST = f"the file system of the output went away. Bring it back, {AGAIN}"
REMEDIES = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR), GONE),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), FULL),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), REFUSED),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO), LOST),
}
_SAID = re.compile(r"\[Errno (\d+)\][^\n]*?'([^'\n]+)'")  # as Python writes an OSError, also into Beam's tracebacks


def is_of_disk(error: BaseException) -> bool:
    """Whether it is about a file, rather than about a connection."""
    return isinstance(error, OSError) and error.errno in REMEDIES and error.filename is not None


def remedy(error: BaseException, root: str) -> str:
    """The end of a message about a file of the output; empty where the error is about anything else."""
    for number, path in _SAID.findall(str(error)):
        below = f"{os.path.abspath(path)}/".startswith(f"{os.path.abspath(root)}/")
        if below and (known := REMEDIES.get(int(number))):
            return f": {known}"
    return ""
