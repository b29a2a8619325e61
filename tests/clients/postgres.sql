CREATE SCHEMA market;
CREATE TABLE market.orders (
    id bigint NOT NULL PRIMARY KEY, customer varchar(20) NOT NULL, amount numeric(18, 4) DEFAULT 0,
    placed timestamp, day date, paid boolean, weight double precision, note text
);
COMMENT ON TABLE market.orders IS 'what was ordered';
COMMENT ON COLUMN market.orders.customer IS 'who ordered';
CREATE TABLE market.lines (order_id bigint NOT NULL, line integer NOT NULL, what varchar(40), PRIMARY KEY (order_id, line));
CREATE TABLE market.events (at timestamp NOT NULL, kind varchar(10), n integer);
CREATE VIEW market.paid_orders AS SELECT id, customer, amount FROM market.orders WHERE paid;
INSERT INTO market.orders VALUES
    (1, 'ann', 10.5000, '2024-01-02 03:04:05', '2024-01-02', true, 1.5, 'first'),
    (2, 'bob', 20.2500, '2024-01-03 00:00:00', '2024-01-03', false, NULL, NULL),
    (3, 'cy', NULL, NULL, NULL, NULL, 0.1, 'o''clock');
INSERT INTO market.lines VALUES (1, 1, 'apple'), (1, 2, 'pear'), (2, 1, 'plum');
INSERT INTO market.events VALUES ('2024-01-01 00:00:00', 'open', 1), ('2024-01-01 00:00:01', 'shut', 2);
