"""All that knows Dagster: the assets, the schedule and the sensor, the stale marks, the resource `gpu`, plots."""
