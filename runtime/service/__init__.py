"""`taro-rt serve`: the command's work behind a local HTTP service. The only place that knows FastAPI."""
