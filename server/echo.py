"""The yardstick of `dreamontage load`: the SDK's own server with one tool that gives back what it got."""

from __future__ import annotations

import sys

from mcp.server import MCPServer


def main() -> None:
    """Serve `echo` over HTTP on this machine, on the port in the first argument."""
    import uvicorn

    server = MCPServer("echo", log_level="WARNING")

    @server.tool()
    def echo(text: str) -> str:
        """Give back the text."""
        return text

    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
