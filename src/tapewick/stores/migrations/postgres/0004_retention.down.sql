DROP FUNCTION tape_now();
DROP TABLE retention_floors;
