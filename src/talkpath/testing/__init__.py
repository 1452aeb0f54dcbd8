"""Helpers for whoever tests with talkpath; imported by nothing else in the package."""
