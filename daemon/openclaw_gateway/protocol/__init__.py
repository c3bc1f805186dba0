"""The gateway protocol, pure: frames, schemas, scopes and the session of one client."""
