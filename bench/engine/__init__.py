"""Where jobs run: one small interface, several engines, more by entry point."""
