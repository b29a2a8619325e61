-- Played by `starkeep demo`. Directives: @say, @wait <kind> <database>, @remember <name>, @same <name>.

-- @say A database with two partitioned tables and a million rows
CREATE DATABASE shop;
USE shop;
CREATE TABLE orders (
    order_id BIGINT NOT NULL, order_date DATE NOT NULL, customer_id INT, amount DECIMAL(12, 2), note VARCHAR(64)
) DUPLICATE KEY (order_id, order_date)
PARTITION BY RANGE (order_date) (START ("2026-01-01") END ("2026-07-01") EVERY (INTERVAL 1 MONTH))
DISTRIBUTED BY HASH (order_id) BUCKETS 3 PROPERTIES ("replication_num" = "2");
CREATE TABLE customers (
    customer_id INT NOT NULL, region VARCHAR(16) NOT NULL, name STRING, balance DECIMAL(12, 2)
) PRIMARY KEY (customer_id, region)
PARTITION BY LIST (region) (PARTITION p_north VALUES IN ("north"), PARTITION p_south VALUES IN ("south"))
DISTRIBUTED BY HASH (customer_id) BUCKETS 3;
INSERT INTO orders
SELECT value, date '2026-01-01' + value % 181, value % 50000, (value::bigint * 7919 % 1000000) / 100.0, concat('order ', value)
FROM generate_series(1, 1000000);
INSERT INTO customers
SELECT value, CASE WHEN value % 2 = 0 THEN 'north' ELSE 'south' END, concat('customer ', value), value * 3 % 1000
FROM generate_series(1, 50000);
SHOW PARTITIONS FROM orders;

-- @say Row count and an order-free checksum of each table, before
-- @remember orders
SELECT count(*) AS rows, sum(cast(xx_hash3_64(concat_ws('|', order_id, order_date, customer_id, amount, note)) AS decimal(38, 0))) AS checksum FROM orders;
-- @remember customers
SELECT count(*) AS rows, sum(cast(xx_hash3_64(concat_ws('|', customer_id, region, name, balance)) AS decimal(38, 0))) AS checksum FROM customers;

-- @say Back up
CREATE REPOSITORY vault WITH BROKER ON LOCATION "${LOCATION}"${PROPERTIES};
BACKUP SNAPSHOT shop.monday TO vault ON (orders, customers) PROPERTIES ("type" = "full", "timeout" = "3600");
SHOW BACKUP FROM shop;
-- @wait backup shop
SHOW BACKUP FROM shop;
SHOW SNAPSHOT ON vault;

-- @say Life goes on, and then it does not
INSERT INTO orders SELECT value, date '2026-03-15', 1, 1.00, 'after the backup' FROM generate_series(2000001, 2010000);
DROP TABLE customers;
DELETE FROM orders WHERE order_date >= date '2026-05-01' OR order_id % 3 = 0;
SELECT count(*) AS orders_left FROM orders;

-- @say Restore
RESTORE SNAPSHOT shop.monday FROM vault PROPERTIES ("backup_timestamp" = "latest");
SHOW RESTORE FROM shop;
-- @wait restore shop
SHOW RESTORE FROM shop;

-- @say Each table is what was backed up
-- @same orders
SELECT count(*) AS rows, sum(cast(xx_hash3_64(concat_ws('|', order_id, order_date, customer_id, amount, note)) AS decimal(38, 0))) AS checksum FROM orders;
-- @same customers
SELECT count(*) AS rows, sum(cast(xx_hash3_64(concat_ws('|', customer_id, region, name, balance)) AS decimal(38, 0))) AS checksum FROM customers;

-- @say What a dashboard sees
SELECT job_id, kind, status, snapshot, tasks_done, files_done, bytes_done, bytes_new,
       round(extract(epoch FROM finished_at - created_at), 2) AS seconds
FROM system.jobs ORDER BY job_id;
