"""How jobs are done: who works on one, through which launcher, and what a worker does."""
