"""What a person reads: status, statistics, plan and plots."""
