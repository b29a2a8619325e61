CREATE DATABASE market;
CREATE TABLE market.orders (
    id BIGINT NOT NULL, customer VARCHAR(20) NOT NULL COMMENT 'who ordered', amount DECIMAL(18, 4) DEFAULT '0',
    placed DATETIME, day DATE, paid BOOLEAN, weight DOUBLE, note STRING
) PRIMARY KEY (id) COMMENT 'what was ordered' DISTRIBUTED BY HASH (id) BUCKETS 2 PROPERTIES ('replication_num' = '1');
CREATE TABLE market.lines (order_id BIGINT NOT NULL, line INT NOT NULL, what VARCHAR(40))
    UNIQUE KEY (order_id, line) DISTRIBUTED BY HASH (order_id) BUCKETS 1 PROPERTIES ('replication_num' = '1');
CREATE TABLE market.events (at DATETIME NOT NULL, kind VARCHAR(10), n INT)
    DUPLICATE KEY (at) DISTRIBUTED BY HASH (at) BUCKETS 1 PROPERTIES ('replication_num' = '1');
CREATE VIEW market.paid_orders AS SELECT id, customer, amount FROM market.orders WHERE paid;
INSERT INTO market.orders VALUES
    (1, 'ann', 10.5000, '2024-01-02 03:04:05', '2024-01-02', true, 1.5, 'first'),
    (2, 'bob', 20.2500, '2024-01-03 00:00:00', '2024-01-03', false, NULL, NULL),
    (3, 'cy', NULL, NULL, NULL, NULL, 0.1, 'o''clock');
INSERT INTO market.lines VALUES (1, 1, 'apple'), (1, 2, 'pear'), (2, 1, 'plum');
INSERT INTO market.events VALUES ('2024-01-01 00:00:00', 'open', 1), ('2024-01-01 00:00:01', 'shut', 2);
