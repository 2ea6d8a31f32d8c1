"""What every room of Dreamontage exchanges: pydantic models, limits and errors. Imports neither torch nor MCP."""
