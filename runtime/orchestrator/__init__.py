"""The owner of executions: takes events, decides, commits, dispatches."""
