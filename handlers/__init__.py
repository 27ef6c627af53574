"""Built-in handlers, registered exactly as a third party's are."""
