"""Mistakes that a user can mend."""


class UserError(ValueError):
    """A mistake a user can mend: one sentence, no traceback, exit code 2."""
