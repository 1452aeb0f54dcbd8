"""What several floors' tests share: a WebSocket peer that may break every rule, and calls in virtual time."""
