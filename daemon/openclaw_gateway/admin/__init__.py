"""What an administrator sees: status, doctor, logs, probe. They look, and leave everything as it was."""
