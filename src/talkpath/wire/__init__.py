"""Sans-IO wires: bytes <-> events. Nothing here resamples, sleeps, logs at INFO or makes a request."""
