"""What can be set, and the frozen settings made of it. Imports nothing heavy: Airflow loads it early."""
