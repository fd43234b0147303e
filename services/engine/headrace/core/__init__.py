"""The rules of headrace: pure code, without I/O, clock, asyncio or pydantic. Time and randomness are passed in."""
