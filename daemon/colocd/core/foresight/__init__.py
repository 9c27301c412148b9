"""Foresight: forecasts of a service's load as calibrated quantiles (docs/forecasting.md)."""
