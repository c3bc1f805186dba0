"""What can be seen of a gateway: its unit, locks, listeners and answers."""
