"""Every setting: from defaults, files, environment and flags into one immutable value."""
