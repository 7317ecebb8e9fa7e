"""What must hold on each channel layer."""
