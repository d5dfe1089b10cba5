"""What every program of ours does alike: start, options, signals, logs, metrics page, end."""
