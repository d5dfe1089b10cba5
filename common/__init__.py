"""What both sides must agree on; knows neither service."""
