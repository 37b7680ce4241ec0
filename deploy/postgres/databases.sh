#!/bin/bash
# At the first start of PostgreSQL: a role and a database for each service. No role may look into another's database.
set -euo pipefail

run() { psql --quiet --no-psqlrc -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d postgres; }

run <<SQL
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
SQL
for service in user order inventory; do
  run <<SQL
CREATE ROLE souk_$service LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '$(cat "/run/secrets/souk/$service")';
CREATE DATABASE souk_$service OWNER souk_$service;
REVOKE ALL ON DATABASE souk_$service FROM PUBLIC;
SQL
done
