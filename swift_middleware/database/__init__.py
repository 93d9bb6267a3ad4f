"""Names, metadata and listings, in SQL: SQLite, PostgreSQL or MariaDB."""
