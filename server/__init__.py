"""The door for agents: MCP tools, the studio, jobs, media intake and the command line. Imports no torch."""
