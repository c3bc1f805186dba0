"""A systemd-native gateway daemon that guarantees exactly one healthy gateway per port."""

__version__ = "0.2.0"
