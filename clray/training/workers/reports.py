"""How the metrics of a worker group reach the process that started it, as each epoch ends.

Ray Train calls back in its controller, a process of its own on the same machine. It sends each epoch over loopback,
signed with a key that only the two know; the file in the run's folder is what lasts.
"""

import hmac
import json
import logging
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from clray.training.metrics import Metrics
from clray.training.workers.port import OnReport

TIMEOUT_SECONDS = 5.0
MOST_BYTES = 2**22
DIGEST, DIGEST_BYTES = "sha256", 32
END = b"end"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where an epoch's metrics are sent to."""

    port: int
    key: bytes = field(repr=False)

    def send(self, metrics: Metrics) -> None:
        """Send an epoch's metrics; where nobody hears them any more, they are in the run's file alone."""
        try:
            self.send_bytes(json.dumps(metrics).encode())
        except OSError as error:
            log.warning("an epoch's metrics did not reach the process that started the run: %s", error)

    def send_bytes(self, message: bytes) -> None:
        """Send one signed message."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_SECONDS) as connection:
            connection.sendall(hmac.digest(self.key, message, DIGEST) + message)

    def receive(self, listener: socket.socket) -> bytes:
        """The next message that is signed; others are passed over."""
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(TIMEOUT_SECONDS)
                try:
                    signed = _read_all(connection)
                except OSError:
                    continue
            message = signed[DIGEST_BYTES:]
            if hmac.compare_digest(signed[:DIGEST_BYTES], hmac.digest(self.key, message, DIGEST)):
                return message


@contextmanager
def reports_heard(on_report: OnReport) -> Iterator[Address]:
    """Call `on_report`, in a thread, for each epoch that is sent to the address while the block runs.

    Raises:
        Exception: what `on_report` raised first, once the block has ended well.
    """
    failures: list[Exception] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(listener.getsockname()[1], secrets.token_bytes(32))

        def hear() -> None:
            while (message := address.receive(listener)) != END:
                try:
                    on_report(json.loads(message))
                except Exception as error:
                    failures.append(error)

        thread = threading.Thread(target=hear, daemon=True)
        thread.start()
        try:
            yield address
        finally:
            # Connections are taken in order: what was sent before is heard before this.
            address.send_bytes(END)
            thread.join()
    if failures:
        raise failures[0]


def _read_all(connection: socket.socket) -> bytes:
    parts, size = [], 0
    while size < MOST_BYTES and (part := connection.recv(2**16)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)
