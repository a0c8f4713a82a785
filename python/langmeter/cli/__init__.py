"""The command `langmeter`: `main` reads the arguments; each command has a file of its own."""
