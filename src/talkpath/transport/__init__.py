"""Trio begins here: clocks, drivers, sockets. Everything below is sans-IO."""
