"""Where a run happens: hardware, processes, engines, the folder it writes to."""
