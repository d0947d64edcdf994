"""What an engine is: errors, contracts, bundles, backends and the networks behind them."""
