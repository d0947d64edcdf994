"""`taro-rt bench`: what every backend costs on this machine, beside what it should cost at least."""
