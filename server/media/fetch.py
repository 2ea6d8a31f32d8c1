"""Links as sources: one https download from a public address, for servers that allow it.

ssrfguard decides what a URL and an address may be, and resolves once; the connection goes to the addresses it checked,
never to a name, so a name that changes its answer in between gains nothing. Every redirect starts over.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from functools import partial
from typing import BinaryIO, Final
from urllib.parse import quote, unquote, urljoin, urlsplit

import anyio
import anyio.to_thread
import httpcore2
from ssrfguard import Policy, Resolver, SSRFGuardError, Target, resolve

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput, MediaRejected
from dreamontage.server.media.magic import HEAD_BYTES, byte_cap, container_of
from dreamontage.server.media.roots import clean_name

POLICY: Final = Policy(
    allowed_schemes=frozenset({"https"}), allowed_ports=frozenset({443}), max_url_length=limits.MAX_URL_CHARS
)
_ALLOWED: Final = "an https link to a picture or clip on the public internet, without a password in it"
_INSTEAD: Final = "download the file into a media root, then add_media with its path"
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_HEADERS: Final = {"User-Agent": "dreamontage", "Accept": "image/*, video/*", "Accept-Encoding": "identity"}
_READABLE: Final = "/%:@!$&'()*+,;=-._~?"


def fetch(
    url: str,
    output: BinaryIO,
    *,
    resolver: Resolver = socket.getaddrinfo,
    network: httpcore2.AsyncNetworkBackend | None = None,
    trust: ssl.SSLContext | None = None,
) -> str:
    """Download a picture or clip into a file and return a clean name for it. Blocks; call it from a worker thread.

    `resolver`, `network` and `trust` stand for the system's own. Raises InvalidInput for a link that may not be
    fetched, in the same words whether its name is unknown or leads into a private network; MediaRejected for an answer
    that is no picture or clip, is too large, or takes longer than limits.URL_TIMEOUT_S.
    """
    try:
        return anyio.run(_fetch, url.strip(), output, resolver, network or httpcore2.AnyIOBackend(), trust)
    except (SSRFGuardError, socket.gaierror, UnicodeError, ValueError) as error:
        raise InvalidInput("that link may not be fetched", allowed=_ALLOWED, next_call=_INSTEAD) from error
    except TimeoutError as error:
        raise _rejected(f"did not arrive within {limits.URL_TIMEOUT_S:g} s") from error
    except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError) as error:
        raise _rejected("could not be fetched: its server does not answer as an https server should") from error


async def _fetch(
    url: str, output: BinaryIO, resolver: Resolver, network: httpcore2.AsyncNetworkBackend, trust: ssl.SSLContext | None
) -> str:
    pinned = _Pinned(resolver, network)
    with anyio.fail_after(limits.URL_TIMEOUT_S):
        async with httpcore2.AsyncConnectionPool(ssl_context=trust, network_backend=pinned) as pool:
            for _ in range(limits.MAX_REDIRECTS + 1):
                target = POLICY.check_url(url)
                async with pool.stream("GET", _address(target, url), headers=[*_HEADERS.items()]) as response:
                    if response.status not in _REDIRECTS:
                        await _save(response, output)
                        return clean_name(unquote(urlsplit(url).path.rpartition("/")[2])) or clean_name(target.host)
                    url = urljoin(url, _header(response, b"location"))
    raise _rejected(f"is redirected more than {limits.MAX_REDIRECTS} times")


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked; a name is resolved here, once, and every answer must be public."""

    def __init__(self, resolver: Resolver, network: httpcore2.AsyncNetworkBackend) -> None:
        self._resolver = resolver
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A stream to the first checked address that answers. Raises SSRFGuardError if any of them is not public."""
        target = POLICY.check_url(f"https://{f'[{host}]' if ':' in host else host}:{port}/")
        look_up = partial(resolve, target, policy=POLICY, resolver=self._resolver)
        addresses = await anyio.to_thread.run_sync(look_up, abandon_on_cancel=True)
        failure: Exception = httpcore2.ConnectError("no address")
        for address in addresses[: POLICY.max_connection_attempts]:
            try:
                return await self._network.connect_tcp(str(address.ip), port, limits.URL_CONNECT_S, local_address)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


def _address(target: Target, url: str) -> httpcore2.URL:
    """What is asked for: host and port are those that were checked, whatever another parser would make of the text."""
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe=_READABLE) + (f"?{quote(parts.query, safe=_READABLE)}" if parts.query else "")
    host = f"[{target.host}]" if ":" in target.host else target.host
    return httpcore2.URL(scheme=b"https", host=host.encode(), port=target.port, target=path.encode())


async def _save(response: httpcore2.Response, output: BinaryIO) -> None:
    if response.status != 200:
        raise _rejected(f"answers with status {response.status}, not with a file")
    declared = _header(response, b"content-length")
    if declared.isdigit() and int(declared) > limits.MAX_CLIP_BYTES:
        raise _rejected(f"has {int(declared):,} bytes")
    head, size, cap = b"", 0, limits.MAX_CLIP_BYTES
    async for chunk in response.aiter_stream():
        if len(head) < HEAD_BYTES:
            head += chunk[:HEAD_BYTES]
            if len(head) >= HEAD_BYTES:
                cap = byte_cap(container_of(head))  # whatever the server calls it; a web page ends here
        size += len(chunk)
        if size > cap:
            raise _rejected(f"has more than {cap:,} bytes")
        output.write(chunk)


def _header(response: httpcore2.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")


def _rejected(problem: str) -> MediaRejected:
    return MediaRejected(f"the link {problem}", allowed=_ALLOWED, next_call=_INSTEAD)
