"""Links that must lead nowhere: every way to write an address that is not public, and every trick around a check."""

from __future__ import annotations

import ipaddress

PRIVATE = (
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254",
    "192.168.0.1", "192.168.255.254", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.127.255.254",
    "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "100.100.100.200",
)  # fmt: skip
"""Loopback, private, link-local with the metadata services, shared, documentation, benchmark, multicast, reserved."""

PRIVATE_6 = (
    "::1", "::", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "100::1",
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:100.64.0.1",
    "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::", "64:ff9b:1::1", "5f00::1",
)  # fmt: skip


def _spellings(address: str) -> list[str]:
    a, b, c, d = (int(part) for part in address.split("."))
    number = int(ipaddress.IPv4Address(address))
    return [
        str(number), hex(number), f"0{number:o}", f"{a}.{b}.{c * 256 + d}", f"{a}.{b * 65536 + c * 256 + d}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{address}.",
        f"%{ord(address[0]):x}{address[1:]}",
    ]  # fmt: skip


WRITTEN = tuple(
    f"https://{host}/a.png"
    for host in (
        *PRIVATE,
        *(f"[{address}]" for address in PRIVATE_6),
        *_spellings("127.0.0.1"),
        *_spellings("169.254.169.254"),
        "localhost", "LOCALHOST", "localhost.", "127.1", "127.0.1", "0", "0x7f.1", "①②⑦.⓪.⓪.①", "127。0。0。1",
        "[::ffff:127.0.0.1%25lo]", "[fe80::1%25eth0]", "169.254.169.254.", "metadata.google.internal",
    )
)  # fmt: skip
"""Links whose host is such an address, in some spelling; the names among them are looked up as such addresses."""

CROOKED = (
    "http://example.com/a.png", "HTTP://example.com/a.png", "ftp://example.com/a.png", "gopher://example.com/_a",
    "data://text/plain,hello", "rtsp://example.com/a.mp4", "concat://example.com", "subfile://a", "tcp://1.1.1.1:80",
    "https://example.com:80/a.png", "https://example.com:22/", "https://example.com:8443/a.png",
    "https://example.com:0/a.png", "https://example.com:99999/a.png", "https://example.com:a/", "https:///a.png",
    "https://user@example.com/a.png", "https://user:pass@example.com/a.png", "https://example.com@127.0.0.1/a.png",
    "https://127.0.0.1#@example.com/", "https://example.com\\@127.0.0.1/", "https://127.0.0.1\\.example.com/",
    "https://exa mple.com/a.png", "https://exam\tple.com/a.png", "https://example.com\r\nHost: evil/a.png",
    "https://example.com%00.evil.com/a.png", "https://[::1", "https://::1/a.png", "https://[127.0.0.1]/a.png",
    "https://" + "a" * 64 + ".com/a.png", "https://" + "a." * 200 + "com/", "https://example.com/" + "a" * 3000,
    "https://.example.com/", "https://example..com/", "https://", "https://%", "https://example.com:443:80/",
)  # fmt: skip
"""Links that are refused for their own sake, before any name is looked up."""

REBOUND = (
    ("127.0.0.1",), ("10.0.0.7",), ("169.254.169.254",), ("100.64.3.2",), ("::1",), ("::ffff:10.0.0.7",), ("fe80::7",),
    ("fd12::1",), ("64:ff9b::a00:7",), ("0.0.0.0",), ("93.184.216.34", "127.0.0.1"), ("127.0.0.1", "93.184.216.34"),
    ("93.184.216.34", "::1"), ("2606:4700::1111", "fd12::1"), ("93.184.216.34", "10.1.1.1", "93.184.216.35"),
)  # fmt: skip
"""What an innocent name may suddenly mean."""
