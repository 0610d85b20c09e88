"""What can go wrong: what the user can put right, and training that cannot go on."""


class UserError(ValueError):
    """Something the user can put right: bad config, missing file, unreadable data. The CLI exits with code 2."""


class TrainingError(RuntimeError):
    """Training that cannot go on, such as a loss that is no longer finite."""
