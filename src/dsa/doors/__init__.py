"""What is typed on a command line: the only place where configurations are composed and told apart."""
