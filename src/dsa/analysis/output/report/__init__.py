"""The report of a study: one page that needs no network, written beside the runs."""
