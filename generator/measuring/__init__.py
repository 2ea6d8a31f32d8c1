"""Measures the delivered frames as they stream by: a few numbers per frame, judged when the shot is whole."""
