"""What is raised where the output cannot be read or written."""


class StorageError(Exception):
    """The output cannot be read or written; the message names the path and the remedy."""
