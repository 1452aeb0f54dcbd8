"""Benchmarks of talkpath: ratios to a named peer in the same run. See README.md beside this file."""
