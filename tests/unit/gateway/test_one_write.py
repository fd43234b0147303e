"""The head of an answer waits for its body, so that both go out by one write; what has no length does not wait."""

from __future__ import annotations

import h11
import pytest

from headrace_gateway.http.protocol import KeepingConnection

LENGTH = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n"


def asked(method: bytes = b"POST", *headers: tuple[bytes, bytes]) -> KeepingConnection:
    """A server's end of a connection over which one request has come."""
    client, server = h11.Connection(h11.CLIENT), KeepingConnection(h11.SERVER)
    request = h11.Request(method=method, target=b"/", headers=[(b"host", b"localhost"), *headers])
    server.receive_data(client.send(request) + client.send(h11.EndOfMessage()))
    assert type(server.next_event()) is h11.Request
    return server


def head_of(headers: list[tuple[bytes, bytes]]) -> h11.Response:
    return h11.Response(status_code=200, reason=b"OK", headers=headers)


def test_an_answer_with_a_length_goes_out_by_one_write() -> None:
    server = asked()
    written = [server.send(each) for each in (head_of(LENGTH), h11.Data(data=b"hello"), h11.EndOfMessage())]
    assert written == [b"", HEAD + b"hello", b""]


def test_the_parts_of_a_long_body_are_not_kept() -> None:
    server = asked()
    written = [server.send(each) for each in (head_of(LENGTH), h11.Data(data=b"he"), h11.Data(data=b"llo"), h11.EndOfMessage())]
    assert [each[-3:] for each in written] == [b"", b"\nhe", b"llo", b""]


@pytest.mark.parametrize("length", [b"5", b"0"])
def test_an_answer_to_head_is_its_head(length: bytes) -> None:
    server = asked(b"HEAD")
    written = [server.send(each) for each in (head_of([(b"content-length", length)]), h11.Data(data=b""), h11.EndOfMessage())]
    assert written == [b"", b"HTTP/1.1 200 OK\r\ncontent-length: %b\r\n\r\n" % length, b""]


def test_an_answer_without_a_body_is_written_at_its_end() -> None:
    server = asked()
    written = [server.send(each) for each in (head_of([(b"content-length", b"0")]), h11.EndOfMessage())]
    assert written == [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]


def test_the_head_of_a_stream_goes_out_at_once() -> None:
    server = asked()
    head = server.send(head_of([(b"content-type", b"text/event-stream")]))
    assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
    assert server.send(h11.Data(data=b": comment\n\n")) == b"b\r\n: comment\n\n\r\n"


def test_the_invitation_to_send_goes_out_at_once() -> None:
    server = asked(b"POST", (b"expect", b"100-continue"), (b"content-length", b"0"))
    invitation = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
    assert server.send(invitation) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_the_next_answer_has_a_head_of_its_own() -> None:
    server = asked()
    for each in (head_of(LENGTH), h11.Data(data=b"hello"), h11.EndOfMessage()):
        server.send(each)
    assert type(server.next_event()) is h11.EndOfMessage
    server.start_next_cycle()
    server.receive_data(b"POST / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert type(server.next_event()) is h11.Request
    assert server.send(head_of(LENGTH)) == b""
    assert server.send(h11.Data(data=b"again")) == HEAD + b"again"
