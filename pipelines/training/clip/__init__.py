"""How the two CLIPs learn."""
