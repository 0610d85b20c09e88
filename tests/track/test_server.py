"""Whether a tracking server answers, asked with the password that its address holds."""

import base64
import http.server
import threading
from collections.abc import Iterator

import pytest

from clray.cli.doctor import examine
from clray.errors import UserError
from clray.track.mlflow import check_server

PLANTED = "planted-7f3a9"


class Guarded(http.server.BaseHTTPRequestHandler):
    """Answers who sends the right name and password."""

    heard: list[str | None] = []  # noqa: RUF012
    redirect: str | None = None

    def do_GET(self) -> None:
        self.heard.append(self.headers.get("Authorization"))
        if self.redirect is not None:
            self.send_response(302)
            self.send_header("Location", self.redirect)
        else:
            expected = "Basic " + base64.b64encode(f"user:{PLANTED}/@ #".encode()).decode()
            self.send_response(200 if self.headers.get("Authorization") == expected else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def serve(handler: type[Guarded]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def guarded() -> Iterator[str]:
    yield from serve(type("Server", (Guarded,), {"heard": []}))


def test_the_password_in_the_address_is_sent(guarded: str) -> None:
    check_server(f"http://user:{PLANTED}%2F%40%20%23@{guarded}/")


def test_the_password_in_the_environment_is_sent(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"{PLANTED}/@ #")
    check_server(f"http://{guarded}")


def test_a_wrong_password_is_said_so_and_not_shown(guarded: str) -> None:
    with pytest.raises(UserError, match=r"refuses the name and password .*401") as refused:
        check_server(f"http://user:{PLANTED}@{guarded}")
    assert PLANTED not in str(refused.value)


def test_a_redirection_does_not_take_the_password_to_another_host(guarded: str) -> None:
    other = type("Other", (Guarded,), {"heard": [], "redirect": f"http://{guarded}/health"})
    for address in serve(other):
        with pytest.raises(UserError, match="401"):
            check_server(f"http://user:{PLANTED}%2F%40%20%23@{address}")
        assert len(other.heard) == 1
        assert other.heard[0] is not None


@pytest.mark.parametrize(
    "uri",
    ["http://user:{}/x@host", "http://user:{}#x@host", "http://user:{}?@host", "http://user:{} x@host", "http://user:{}@",
     "http://user:{}@host:port", "http://u:{}@[::1", "http://"],
)  # fmt: skip
def test_an_address_that_cannot_be_read_is_refused_without_its_password(uri: str) -> None:
    with pytest.raises(UserError, match=r"^tracking\.uri: [^ ]+( x@host)? is no address of a server") as refused:
        check_server(uri.format(PLANTED))
    assert PLANTED not in str(refused.value)
    assert PLANTED not in str(refused.value.__cause__)


def test_doctor_shows_no_password(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"ray://user:{PLANTED}@127.0.0.1:9")
    for uri in (
        f"http://user:{PLANTED}%2F%40%20%23@{guarded}",
        f"http://user:{PLANTED}@127.0.0.1:9",
        f"http://u:{PLANTED}@h:x",
    ):
        found = {check.name: check.finding for check in examine(uri)}
        assert "***@" in found["tracking"]
        assert PLANTED not in str(found)
