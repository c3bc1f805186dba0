"""Talking to a gateway: its health, its protocol."""
