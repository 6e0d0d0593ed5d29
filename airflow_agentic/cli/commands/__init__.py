"""The commands, one file a resource. Loaded when a command is run."""
