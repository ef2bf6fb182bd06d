DROP TABLE watches;
DROP TABLE leases;
