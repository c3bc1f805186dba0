"""What systemd hears and gives: notifications, watchdog, journal."""
