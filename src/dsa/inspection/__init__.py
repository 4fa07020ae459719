"""Where a finished run's attention went, and what its selections kept and missed of it."""
