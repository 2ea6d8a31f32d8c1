"""Training pictures, procedural worlds and the virtual camera that turns them into clips."""
