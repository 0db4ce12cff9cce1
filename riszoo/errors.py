"""Mistakes that a user can mend."""


class UserError(ValueError):
    """A mistake a user can mend: one sentence, no traceback, exit code 2."""


def user_error_in(error: BaseException | None) -> UserError | None:
    """The UserError that another library wrapped in an error of its own; None where there is none."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
