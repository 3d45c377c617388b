"""What all pipelines share: settings, steps, records, journals."""
