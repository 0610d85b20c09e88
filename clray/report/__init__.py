"""Tables, pictures and pages of runs and sweeps; knows no MLflow."""
