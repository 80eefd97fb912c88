"""The error of the command line, and of those who read its values."""


class UsageError(Exception):
    """The command line cannot be obeyed; the message names the value and the remedy."""
