"""Where segments run: in this process, or on the renderers of a Ray cluster; the same job gives the same bytes."""
