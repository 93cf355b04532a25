"""MLflow: runs, models and pictures from what the stages leave on disk."""
