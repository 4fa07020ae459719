"""How a study is told: the terminal, files for programs, figures, and a page."""
