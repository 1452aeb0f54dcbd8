"""The platform's end: an engine owns calls, a call owns a leg and its streams."""
