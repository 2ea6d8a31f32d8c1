"""`python -m dreamontage.generator.evaluation`: the same as `dreamontage evaluate`."""

from __future__ import annotations

from dreamontage.generator.evaluation.cli import app

if __name__ == "__main__":
    app(prog_name="dreamontage evaluate")
