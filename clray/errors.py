"""What can go wrong: what the user can put right, and training that cannot continue.

Messages name addresses and values as they were given; passwords in them are hidden, whoever shows the message.
"""

from clray.redaction import hide_credentials


class UserError(ValueError):
    """Something the user can put right: bad config, missing file, unreadable data. The CLI exits with code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_credentials(message))


class WaitedTooLong(UserError):
    """What was waited for has not come in the time that the user gives it; what is done until then is kept."""


class TrainingError(RuntimeError):
    """Training that cannot continue, such as a loss that is no longer finite."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_credentials(message))
