"""MLflow: runs, models and pictures from the files that the stages write."""
