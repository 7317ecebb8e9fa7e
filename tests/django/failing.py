"""What the browser hears when a worker, a task or a connection fails."""
