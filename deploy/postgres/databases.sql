-- Run once, when PostgreSQL's volume is new. Dagster's database is made by the image itself (POSTGRES_DB).
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
