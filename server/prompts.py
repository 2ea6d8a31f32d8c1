"""Prompts: the workflow told once more, for hosts that offer prompts to their users."""

from __future__ import annotations

from typing import Annotated

from mcp.server import MCPServer
from pydantic import Field

from .context import App


def add_prompts(server: MCPServer[App]) -> None:
    """The one prompt: make a one-shot film."""

    @server.prompt(title="Make a one-shot film")
    def one_shot(
        pictures: Annotated[str, Field(description="Paths of pictures and clips, in order, separated by commas.")],
        duration_s: Annotated[str, Field(description="Length in seconds; empty: 3 s per picture.")] = "",
        idea: Annotated[str, Field(description="What should happen, in words.")] = "",
    ) -> str:
        """Guide an agent from a list of pictures to a finished shot."""
        sources = [item.strip() for item in pictures.split(",") if item.strip()]
        length = f", duration_s={duration_s}" if duration_s else ""
        return f"""\
Make one continuous shot with the dreamontage tools, through these pictures and clips in this order: {sources}.
{f"The idea: {idea}" if idea else "Choose camera moves that suit the pictures."}

1. plan_montage(anchors={sources}{length}, brief=...) — give beats where words or a camera move help, such as \
{{"start_s": 0, "end_s": 3, "prompt": "slow pan left", "camera": {{"move": "pan", "direction": "left"}}}}.
2. preview_montage and look at the sheet: is every picture where it belongs, does the camera travel sensibly? If not, \
update_anchors or edit_beats.
3. render_segments(quality="draft"), then get_job until it is done. Read the verdict and the notes.
4. Repair only what is bad: render_segments(from_s=..., to_s=..., seed=...). What is good is reused.
5. render_segments(quality="standard"), get_job, and tell the user where the file is."""
