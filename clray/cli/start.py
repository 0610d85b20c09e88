"""What `train` and `sweep` share: the resolved config, what a terminal sees of the work, and how to resume it."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clray.cli.flags import with_flags
from clray.cli.options import as_overrides
from clray.cli.terminal import err, log_to_file, out, print_error, print_line, print_note, print_values
from clray.config import Config, override, read_config
from clray.interrupts import uninterrupted
from clray.progress import ConsoleObserver
from clray.redaction import hide_credentials

JOB_FOLDER = "working_dir_files"
"""In the path of the folder in which `ray job submit` runs a command."""


def resolve(
    path: Path,
    assignments: list[str] | None,
    output: str | None,
    tracking_uri: str | None,
    register: str | None,
) -> tuple[Config, dict[str, Any]]:
    """The resolved config, and the overrides that the command's options make of the file."""
    overrides = as_overrides(assignments, output, tracking_uri, register)
    config = read_config(path, overrides)
    if JOB_FOLDER in str(Path.cwd()) and not Path(config.output).is_absolute():
        kept = str(Path.home() / "clray" / config.output)
        print_note(f"Ray deletes a job's own folder; results go to {kept}. Set output to choose another place")
        overrides["output"] = kept
        config = override(config, {"output": kept})
    return config, overrides


class CommandObserver(ConsoleObserver):
    """Shows the work on the terminal, and knows the command that resumes it once there is something to resume."""

    def __init__(
        self,
        command: str,
        path: Path,
        assignments: list[str] | None,
        config: Config,
        *,
        num_trials: int | None = None,
        as_json: bool,
        verbose: bool,
    ) -> None:
        # With --json the results alone go to stdout; a bar of a run goes to stderr in any case.
        super().__init__(err if as_json or command == "train" else out, quiet=as_json)
        self.command, self.path, self.assignments, self.config = command, path, assignments, config
        self.num_trials, self.verbose, self.resume_command = num_trials, verbose, ""

    def chosen(self, folder: Path) -> None:
        if self.num_trials is not None and not self.quiet:
            out.print(f"{self.num_trials} trials", style="bold", end=", ")
            print_line(f"results in {folder}")
        if not self.verbose:
            log_to_file(log_file(self.config), "ray", "mlflow", "alembic", "clray")

    def opened(self, folder: Path) -> None:
        self.resume_command = resume_command(self.command, self.path, self.assignments, self.config, folder)

    def lost(self, reason: str) -> None:
        print_error("failed", with_flags(reason))
        self.print_resume()
        os._exit(1)  # whatever asks the cluster on the way out would hang

    def note(self, message: str) -> None:
        print_note(with_flags(message))

    def kept_back(self, num_entries: int, folder: Path, uri: str) -> None:
        command = shlex.join(["clray", "upload", str(folder), "--tracking-uri", hide_credentials(uri)])
        print_note(
            f"the MLflow store cannot be reached: {num_entries} entries are kept in {folder}. "
            f"Once it answers again: {command}"
        )

    def print_resume(self) -> None:
        """Say how to resume, where there is something to resume."""
        if self.resume_command:
            print_line(f"Resume with: {self.resume_command}", err)


@contextmanager
def resumable(observer: CommandObserver) -> Iterator[None]:
    """Where the work does not end well, say how to resume it."""
    try:
        yield
    except BaseException:
        with uninterrupted():
            observer.print_resume()
        raise


def resume_command(command: str, path: Path, assignments: list[str] | None, config: Config, folder: Path) -> str:
    """The command that resumes an interrupted run, as a shell reads it."""
    words = ["clray", command, str(path)]
    for assignment in assignments or []:
        words += ["--set", hide_credentials(assignment)]
    if config.tracking.uri:
        words += ["--tracking-uri", hide_credentials(config.tracking.uri)]
    if config.tracking.register_as:
        words += ["--register", config.tracking.register_as]
    return shlex.join([*words, "--output", config.output, "--name", folder.name, "--resume"])


def print_places(config: Config, tracking_uri: str, page: str | None, paths: dict[str, Any]) -> None:
    """Where results, store and log are."""
    from clray.track.mlflow import ui_command

    shown = {} if page is None else {"page": hide_credentials(page)}
    print_values({**paths, "compare": hide_credentials(ui_command(tracking_uri)), **shown, "log": log_file(config)})


def log_file(config: Config) -> Path:
    """What Ray and MLflow had to say."""
    return Path(config.output).resolve() / "clray.log"
