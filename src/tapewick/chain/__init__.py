"""What happens on chains: the logs of watched contracts as order events, and orders as their fold."""
