"""Where a run trains: this process, or a Ray Train worker group."""
