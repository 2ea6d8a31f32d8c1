"""Requests that no honest client sends: each gets a short refusal, none a file, a traceback or a silent server."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import anyio
import httpx2
import pytest
from serving import served

from dreamontage.server.http import http_app
from dreamontage.server.store import Studio

pytestmark = pytest.mark.anyio
TOKEN = "a-token-for-tests-only"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SPEAKS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json",
          "MCP-Protocol-Version": "2025-06-18"}  # fmt: skip
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("door")
    with Studio(folder / "studio", folder / "out") as studio, served(http_app(studio, TOKEN)) as address:
        yield address


def called(name: object, arguments: object) -> bytes:
    return json.dumps({**CALL, "params": {"name": name, "arguments": arguments}}).encode()


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "words": b"hello",
    "a list": b"[]",
    "a batch": json.dumps([CALL] * 9).encode(),
    "null": b"null",
    "no utf-8": b'{"jsonrpc": "2.0", "id": 1, "method": "\xff\xfe"}',
    "a hundred thousand brackets": b"[" * 100_000,
    "a hundred thousand objects": b'{"a":' * 100_000,
    "arguments a thousand deep": called("get_montage", json.loads('{"a":' * 400 + "1" + "}" * 400)),
    "not a number": called("get_job", {"wait_s": float("nan")}),
    "a number of ten thousand digits": b'{"jsonrpc":"2.0","id":' + b"9" * 10_000 + b',"method":"tools/list"}',
    "a method of a megabyte": json.dumps({**CALL, "method": "x" * 2**20}).encode(),
    "a method that is an object": json.dumps({**CALL, "method": {"a": 1}}).encode(),
    "a name that is a path": called("../../etc/passwd", {}),
    "a name that is a dunder": called("__class__", {}),
    "a name of a megabyte": called("x" * 2**20, {}),
    "arguments that are a list": called("get_montage", [1, 2]),
    "an id that is an object": called("get_montage", {"montage_id": {"$ne": None}}),
    "an id that is sql": called("get_montage", {"montage_id": "m_1' OR '1'='1"}),
    "an id that is a path": called("get_montage", {"montage_id": "../../studio.db"}),
    "an id with a null": called("get_montage", {"montage_id": "m_\0"}),
    "a prototype": called("get_montage", {"__proto__": {"admin": True}, "constructor": 1}),
    "a resource that is a file": json.dumps(
        {**CALL, "method": "resources/read", "params": {"uri": "file:///etc/passwd"}}
    ).encode(),
    "a resource that climbs": json.dumps(
        {**CALL, "method": "resources/read", "params": {"uri": "montage://../../etc/passwd"}}
    ).encode(),
    "a resource that climbs in disguise": json.dumps(
        {**CALL, "method": "resources/read", "params": {"uri": "montage://%2e%2e%2fstudio.db"}}
    ).encode(),
    "a picture that is a pickle": called("add_media", {"sources": [{"data": "gASVAAAA", "mime": "image/png"}]}),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_makes_no_sense_is_refused(url: str, name: str) -> None:
    async with httpx2.AsyncClient(base_url=url, headers={**BEARER, **SPEAKS}, timeout=20) as client:
        answer = await client.post("/mcp", content=BODIES[name])
    told = answer.text
    assert answer.status_code < 500, told
    assert '"error"' in told or '"isError":true' in told or answer.status_code >= 400, told
    assert "Traceback" not in told and "root:" not in told and "site-packages" not in told and len(told) < 5_000


PATHS = [
    "/../etc/passwd", "/%2e%2e/studio.db", "/files/", "/files/owner/9999999999/" + "0" * 40 + "/studio.db",
    "/files/owner/1/x/../../studio.db", "/files/owner/9999999999/x/%2e%2e%2fstudio.db", "/files//etc/passwd",
    "/files/owner/99999999999999999999/x/studio.db", "/files/owner/-1/x/studio.db", "/files/%00/1/x/y", "/uploads/",
    "/uploads/%2e%2e/x", "/studio.db", "/http-token", "/.git/config", "/static/../studio.db", "/mcp/../http-token",
    "//etc/passwd", "/mcp%00", "/%ff%fe", "/" + "a" * 8_000, "/files/owner/9999999999/\u00fc/studio.db", "/.env",
    "/.well-known/../http-token", "/.well-known/oauth-protected-resource/../../http-token",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
async def test_a_path_that_leads_nowhere_gives_nothing_away(url: str, path: str) -> None:
    async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
        for method in ("GET", "PUT", "HEAD"):
            answer = await client.request(method, path)
            assert answer.status_code in (400, 401, 403, 404, 405), (method, path, answer.status_code)
            assert TOKEN not in answer.text and "SQLite" not in answer.text and len(answer.text) < 400


RAW = {
    "no request": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "two lengths": b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a length and chunks": b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    "a negative length": b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "a header of a megabyte": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2**20 + b"\r\n\r\n",
    "an absolute target": b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a web socket": b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "a tunnel": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW)
async def test_what_is_no_proper_request_is_turned_away(url: str, name: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    with anyio.fail_after(20), socket.create_connection((host, int(port)), 10) as raw:
        answer = b""
        try:
            raw.sendall(RAW[name] + b"\r\n\r\n")
            raw.shutdown(socket.SHUT_WR)
            while part := await anyio.to_thread.run_sync(raw.recv, 65_536):
                answer += part
        except OSError:  # the server hung up with bytes unread
            pass
    assert b" 200 " not in answer and b" 101 " not in answer and b"Traceback" not in answer
    async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
        assert (await client.get("/nowhere", headers=BEARER)).status_code == 404  # and the server lives
