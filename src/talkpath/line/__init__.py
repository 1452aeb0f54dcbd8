"""The application's end: a `Line` to listen, speak, clear and hang up; servers and clients that make one."""
