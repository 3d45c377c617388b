"""Jobs belong to the server: a queue for each device, and threads that end."""
