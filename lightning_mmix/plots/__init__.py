"""Pictures: values in, a matplotlib Figure out; nothing is shown or saved."""
