"""What the kernel says of processes and ports."""
