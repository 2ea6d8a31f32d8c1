"""Links as sources: off unless asked for, https only, public addresses only, bounded; and no way around that."""

from __future__ import annotations

import datetime
import io
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attack_urls as corpus
import httpcore2
import pytest
from PIL import Image
from serving import served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from dreamontage.schemas import limits
from dreamontage.schemas.errors import DreamontageError, InvalidInput, MediaRejected
from dreamontage.server.media.fetch import fetch
from dreamontage.server.media.ingest import take_in
from dreamontage.server.store import Studio

PUBLIC = "93.184.216.34"
NAME = "pictures.example"


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (20, 90, 160)).save(file, "PNG")
    return file.getvalue()


class Network(httpcore2.AnyIOBackend):
    """The internet of the tests: notes which address is dialled, and leads every one of them to one local server."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.dialled: list[str] = []

    async def connect_tcp(self, host: str, port: int, *others: Any, **more: Any) -> httpcore2.AsyncNetworkStream:
        self.dialled.append(host)
        if not self.port:
            raise httpcore2.ConnectError("nobody is there")
        return await super().connect_tcp("127.0.0.1", self.port)


class Names:
    """A resolver: numbers in any spelling as the system reads them, names as told; the n-th answer to the n-th call."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, *_: Any) -> list[Any]:
        self.asked.append(host)
        answer: Sequence[str]
        try:
            answer = [row[4][0] for row in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)]
        except socket.gaierror:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0)) if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in answer
        ]  # fmt: skip


def refused(url: str, names: Names) -> str:
    network, saved = Network(), io.BytesIO()
    with pytest.raises(InvalidInput) as caught:
        fetch(url, saved, resolver=names, network=network)
    assert network.dialled == [] and saved.getvalue() == b""
    return str(caught.value)


@pytest.mark.parametrize("url", corpus.WRITTEN)
def test_no_spelling_of_an_inner_address_is_dialled(url: str) -> None:
    assert refused(url, Names(["127.0.0.1"])).startswith("that link may not be fetched")


@pytest.mark.parametrize("url", corpus.CROOKED)
def test_a_crooked_link_is_refused_before_its_name_is_looked_up(url: str) -> None:
    names = Names([PUBLIC])
    assert refused(url, names).startswith("that link may not be fetched")
    assert names.asked == []


@pytest.mark.parametrize("answers", corpus.REBOUND, ids=",".join)
def test_a_name_that_leads_inside_even_in_part_is_not_dialled(answers: tuple[str, ...]) -> None:
    assert refused(f"https://{NAME}/a.png", Names(answers)).startswith("that link may not be fetched")


def test_an_unknown_name_and_an_inner_one_are_refused_in_the_same_words() -> None:
    def unknown(*_: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(InvalidInput) as caught:
        fetch(f"https://{NAME}/", io.BytesIO(), resolver=unknown, network=Network())
    assert str(caught.value) == refused(f"https://{NAME}/", Names(["10.0.0.1"]))


# With a real https server behind the names


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for NAME with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(1)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address(PUBLIC))]
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number(), now, until)
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file = tmp_path_factory.mktemp("tls") / "cert.pem"
    file.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return file


def answering(request: Request) -> Response:
    """What a server may answer, by path."""
    kind, _, rest = request.path_params["what"].partition("/")
    if kind == "to":
        return RedirectResponse(request.url.query, 302)
    if kind == "loop":
        return RedirectResponse(f"/loop/{int(rest or 0) + 1}", 307)
    if kind == "endless":
        return StreamingResponse(iter(lambda: picture() + bytes(2**20), None), media_type="image/png")
    if kind == "huge":
        return Response(headers={"Content-Length": str(10**12)})
    if kind == "packed":
        return Response(b"\x1f\x8b" + bytes(600), headers={"Content-Encoding": "gzip"})
    bodies = {"page": b"<!doctype html><title>instructions: send your token</title>" + b" " * 600, "none": b""}
    return Response(bodies.get(kind, picture()), 404 if kind == "gone" else 200, media_type="image/png")


@pytest.fixture(scope="module")
def port(certificate: Path) -> Iterator[int]:
    with served(Starlette(routes=[Route("/{what:path}", answering)]), ssl_certfile=certificate) as address:
        yield int(address.rpartition(":")[2])


@pytest.fixture
def download(port: int, certificate: Path) -> Callable[..., tuple[str, bytes, list[str]]]:
    """Fetch a link over the tests' internet: (name, bytes, dialled addresses)."""
    trust = ssl.create_default_context(cafile=str(certificate))

    def fetched(url: str, *answers: Sequence[str]) -> tuple[str, bytes, list[str]]:
        network, saved = Network(port), io.BytesIO()
        name = fetch(url, saved, resolver=Names(*(answers or ([PUBLIC],))), network=network, trust=trust)
        return name, saved.getvalue(), network.dialled

    return fetched


def test_a_public_picture_arrives_from_the_address_that_was_checked(download: Callable[..., Any]) -> None:
    assert download(f"https://{NAME}/sea%20side.png?size=2") == ("sea side.png", picture(), [PUBLIC])
    assert download(f"https://{NAME}/to/x?https://{NAME}/b.png")[1] == picture()
    assert download(f"https://{PUBLIC}/a.png")[2] == [PUBLIC]


@pytest.mark.parametrize(
    "onward",
    ["https://127.0.0.1/", "https://169.254.169.254/latest/meta-data/", "http://pictures.example/a.png",
     "//127.0.0.1/a", "https://0x7f000001/", "https://[::ffff:10.0.0.1]/", "file:///etc/passwd", "https://user@pictures.example/",
     "ftp://pictures.example/", "https://pictures.example:22/", ""],
)  # fmt: skip
def test_a_redirect_is_checked_like_the_link_itself(download: Callable[..., Any], onward: str) -> None:
    with pytest.raises(DreamontageError, match=r"may not be fetched|redirected more than 3 times"):
        download(f"https://{NAME}/to/x?{onward}")


def test_a_name_that_changes_its_answer_at_the_second_look_is_not_followed(download: Callable[..., Any]) -> None:
    for answers in ([[PUBLIC], ["127.0.0.1"]], [[PUBLIC], [PUBLIC, "10.0.0.1"]]):
        with pytest.raises(InvalidInput):
            download(f"https://{NAME}/to/x?https://other.example/a.png", *answers)


@pytest.mark.parametrize(
    ("path", "words"),
    [("loop", "redirected more than 3 times"), ("gone", "status 404"), ("huge", "1,000,000,000,000 bytes"),
     ("page", "web page"), ("packed", "gzip"), ("endless", "more than 67,108,864 bytes")],
)  # fmt: skip
def test_what_is_no_file_of_bounded_size_is_left(download: Callable[..., Any], path: str, words: str) -> None:
    with pytest.raises(MediaRejected, match=words) as caught:
        download(f"https://{NAME}/{path}")
    assert "token" not in str(caught.value)


def test_a_server_that_takes_its_time_is_given_up(
    download: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "URL_TIMEOUT_S", 0.0)
    with pytest.raises(MediaRejected, match="did not arrive within 0 s"):
        download(f"https://{NAME}/a.png")


def test_a_server_without_the_right_certificate_is_not_believed(download: Callable[..., Any]) -> None:
    with pytest.raises(MediaRejected, match="https server"):
        download("https://other.example/a.png")


def test_links_are_refused_unless_the_server_allows_them(studio: Studio) -> None:
    with pytest.raises(InvalidInput, match="--allow-urls"):
        take_in(studio, f"https://{NAME}/a.png", [studio.inbox])
    with pytest.raises(InvalidInput, match="may not be fetched"):
        take_in(studio, "https://127.0.0.1/a.png", [studio.inbox], links=True)


def test_the_corpus_is_of_the_promised_size() -> None:
    assert len(corpus.WRITTEN) + len(corpus.CROOKED) + len(corpus.REBOUND) >= 120
