"""Measures what nano's default output is worth, beside the simplest alternatives, and draws it."""
