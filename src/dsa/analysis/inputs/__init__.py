"""What a study left: its plan, its results as one tidy frame, its times; and what those are measured in."""
