"""Processes that generators start outside this one."""
