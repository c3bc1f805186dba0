"""
Clean Debian systems for building the package and for testing it with a real systemd as PID 1.

Needs root, debootstrap and systemd-nspawn; ``python3 -m testbed --help`` says what it can do.
"""
